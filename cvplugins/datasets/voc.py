"""PASCAL VOC: the layout of a devkit, its annotations, and a check of all of it before any work."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from cvplugins.errors import DataError

__all__ = [
    "VOC_CLASSES",
    "DataError",
    "VOCAnnotation",
    "VOCObject",
    "VOCReport",
    "VOCSplit",
    "check_jpeg",
    "check_voc",
    "read_annotation",
    "read_split",
]

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)

HOW_TO_GET_VOC = (
    "To get VOC: download VOCtrainval_06-Nov-2007.tar, VOCtest_06-Nov-2007.tar and VOCtrainval_11-May-2012.tar from "
    "the PASCAL VOC site (host.robots.ox.ac.uk/pascal/VOC) and unpack them in data/, so that data/VOCdevkit/VOC2007 "
    "exists (data/README.md). To try without it: configs/voc_faster_rcnn_sample.py or, for Detectron2, "
    "configs/detectron2/voc_faster_rcnn_sample.yaml with data/sample/VOCdevkit"
)

START_OF_IMAGE = b"\xff\xd8\xff"
END_OF_IMAGE = b"\xff\xd9"
# Some writers pad after the end marker. Within a scan 0xFF is always escaped, so the marker is no chance match.
TAIL = 1024
LISTED = 10


@dataclass(frozen=True)
class VOCObject:
    """One object: class and box in the file's pixel coordinates, which start at 1 and include ``xmax``, ``ymax``."""

    name: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float
    difficult: bool = False
    truncated: bool = False
    pose: str = "Unspecified"


@dataclass(frozen=True)
class VOCAnnotation:
    """One image's annotation: file name (empty if the file does not say), size in pixels (or None) and objects."""

    filename: str
    width: int | None
    height: int | None
    objects: tuple[VOCObject, ...]


@dataclass(frozen=True)
class VOCSplit:
    """What a split holds: whole images, their objects, and how many of these are difficult."""

    year: str
    name: str
    images: int
    objects: int
    difficult: int


@dataclass(frozen=True)
class VOCReport:
    """What `check_voc` found: a summary of each split, and ``(id, reason)`` for each image to leave out."""

    splits: tuple[VOCSplit, ...]
    broken: tuple[tuple[str, str], ...]


def read_annotation(path: str | os.PathLike[str], classes: Sequence[str] = VOC_CLASSES) -> VOCAnnotation:
    """Read one annotation file.

    ``size``, ``difficult``, ``truncated`` and ``pose`` may be absent, coordinates may be fractions, and what the
    other VOC tasters added (``part``, ``actions``) is passed over. A DOCTYPE is refused, because entities can blow
    up memory.

    Args:
        path: An XML file of ``Annotations/``.
        classes: Names that objects may have.

    Returns:
        The annotation; the objects in the file's order.

    Raises:
        DataError: The file is missing or not well-formed, an element is missing, a number is none, a box is inside
            out, or a class is not one of ``classes``; the message names file, line and what.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "000001.xml"
        >>> _ = path.write_text(
        ...     "<annotation><size><width>40</width><height>30</height></size><object><name>dog</name><bndbox>"
        ...     "<xmin>1</xmin><ymin>2</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object></annotation>"
        ... )
        >>> read_annotation(path).objects[0]
        VOCObject(name='dog', xmin=1.0, ymin=2.0, xmax=40.0, ymax=30.0, difficult=False, truncated=False, \
pose='Unspecified')
    """
    document = _Document(Path(path))
    size = document.root.find("size")
    return VOCAnnotation(
        filename=document.root.findtext("filename", ""),
        width=None if size is None else document.pixels(size, "width"),
        height=None if size is None else document.pixels(size, "height"),
        objects=tuple(_read_object(document, element, classes) for element in document.root.findall("object")),
    )


def read_split(devkit: str | os.PathLike[str], year: str, split: str) -> list[str]:
    """Return the image ids that ``ImageSets/Main/{split}.txt`` lists, in its order.

    Args:
        devkit: The folder ``VOCdevkit``.
        year: A folder of the devkit, such as ``"VOC2007"``.
        split: A list's name, such as ``"trainval"``; per-class lists (``"dog_train"``), whose second column is a
            flag, give their first column.

    Raises:
        DataError: The list is missing, not text, empty, or names an image twice.
    """
    path = Path(devkit) / year / "ImageSets" / "Main" / f"{split}.txt"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file") from error
    except OSError as error:
        there = ", ".join(sorted(other.stem for other in path.parent.glob("*.txt"))[:LISTED]) or "none"
        raise DataError(f"{path}: cannot read the split, {error.strerror}; lists in its folder: {there}") from error
    lines_of: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        image_id = line.split()[0]
        if image_id in lines_of:
            raise DataError(f"{path}, line {number}: names image {image_id} again (first in line {lines_of[image_id]})")
        lines_of[image_id] = number
    if not lines_of:
        raise DataError(f"{path}: names no image")
    return list(lines_of)


def check_voc(
    devkit: str | os.PathLike[str],
    splits: Sequence[tuple[str, str]],
    *,
    classes: Sequence[str] = VOC_CLASSES,
    skip_broken: bool = False,
) -> VOCReport:
    """Check everything that training and testing will read: folders, lists, annotations and images.

    Annotations are read in full; of an image only its two ends, where a truncated file shows. That takes 0.1 to
    0.2 s for 1,000 images that the system has cached.

    Args:
        devkit: The folder ``VOCdevkit``.
        splits: Pairs of year and split, such as ``("VOC2007", "trainval")``.
        classes: Names that objects may have.
        skip_broken: Report missing and broken images and annotations instead of raising.

    Returns:
        A summary of each split. ``broken`` is empty unless ``skip_broken``.

    Raises:
        DataError: A folder or list is missing, or an image or annotation is missing or broken: the first one in
            detail, the ids of the next ones, and how many there are. With ``skip_broken`` only if none is whole.

    Example:
        >>> check_voc("data/no_such_folder", [("VOC2007", "trainval")])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        cvplugins.errors.DataError: no VOC data: folder ...
    """
    summaries: list[VOCSplit] = []
    all_broken: list[tuple[str, str]] = []
    for year, split in splits:
        folder = Path(devkit) / year
        _check_folders(folder)
        ids = read_split(devkit, year, split)
        # Threads hide the latency of slow disks.
        with ThreadPoolExecutor(max_workers=8) as pool:
            checked = list(pool.map(lambda image_id, folder=folder: _check_image(folder, image_id, classes), ids))
        broken = [(image_id, found) for image_id, found in zip(ids, checked, strict=True) if isinstance(found, str)]
        if broken and (not skip_broken or len(broken) == len(ids)):
            raise _broken_error(f"{year} {split}", broken, len(ids))
        whole = [found for found in checked if isinstance(found, VOCAnnotation)]
        objects = [found for annotation in whole for found in annotation.objects]
        difficult = sum(found.difficult for found in objects)
        summaries.append(VOCSplit(year, split, len(whole), len(objects), difficult))
        all_broken += broken
    return VOCReport(tuple(summaries), tuple(all_broken))


def _check_folders(folder: Path) -> None:
    for part in (folder, folder / "JPEGImages", folder / "Annotations", folder / "ImageSets" / "Main"):
        if not part.is_dir():
            layout = f"{folder.name} needs JPEGImages/, Annotations/ and ImageSets/Main/"
            raise DataError(f"no VOC data: folder {part.absolute()} does not exist; {layout}. {HOW_TO_GET_VOC}")


def _check_image(folder: Path, image_id: str, classes: Sequence[str]) -> VOCAnnotation | str:
    """Return an image's annotation, or what is wrong with image or annotation."""
    try:
        annotation = read_annotation(folder / "Annotations" / f"{image_id}.xml", classes)
        check_jpeg(folder / "JPEGImages" / f"{image_id}.jpg")
    except DataError as error:
        return str(error)
    return annotation


def check_jpeg(path: Path) -> None:
    """Raise ``DataError`` unless both ends of a JPEG image are there: a truncated file lacks the last bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(len(START_OF_IMAGE))
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            tail = file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot read the image, {error.strerror}") from error
    if not head:
        raise DataError(f"{path}: the file is empty")
    if head != START_OF_IMAGE:
        raise DataError(f"{path}: not a JPEG image (it starts with bytes {head.hex(' ')}, not ff d8 ff)")
    if END_OF_IMAGE not in tail:
        raise DataError(f"{path}: truncated JPEG (no end marker)")


def _broken_error(split: str, broken: Sequence[tuple[str, str]], images: int) -> DataError:
    message = f"{split}: {len(broken)} of {images} images missing or broken: {broken[0][1]}"
    others = [image_id for image_id, _ in broken[1:]]
    if others:
        more = f" and {len(others) - LISTED} more" if len(others) > LISTED else ""
        message += f"; further: {', '.join(others[:LISTED])}{more}"
    leave_out = "leave them out: CVPLUGINS.DATA.SKIP_BROKEN in Detectron2, else skip_broken=True"
    return DataError(f"{message}. Mend them, take them off the list, or {leave_out}")


def _read_object(document: _Document, element: Element, classes: Sequence[str]) -> VOCObject:
    name = document.child(element, "name")
    if name.text is None or name.text not in classes:
        kind = "20 VOC" if classes == VOC_CLASSES else f"{len(classes)} given"
        raise document.error(name, f"class {name.text!r} is none of the {kind} classes ({', '.join(classes)})")
    box = document.child(element, "bndbox")
    xmin, ymin, xmax, ymax = (document.number(box, side) for side in ("xmin", "ymin", "xmax", "ymax"))
    if xmax < xmin or ymax < ymin:
        raise document.error(box, f"the box is inside out: xmin {xmin:g}, ymin {ymin:g}, xmax {xmax:g}, ymax {ymax:g}")
    difficult, truncated = (document.flag(element, tag) for tag in ("difficult", "truncated"))
    pose = element.findtext("pose", "Unspecified")
    return VOCObject(name.text, xmin, ymin, xmax, ymax, difficult, truncated, pose)


class _Document:
    """An XML file that knows the line of each element, which `xml.etree` forgets."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[Element, int] = {}
        self._parser = expat.ParserCreate()
        self._builder = TreeBuilder()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._builder.end
        self._parser.CharacterDataHandler = self._builder.data
        self._parser.StartDoctypeDeclHandler = self._refuse_doctype
        try:
            self._parser.Parse(path.read_bytes(), True)
        except OSError as error:
            raise DataError(f"{path}: cannot read the annotation, {error.strerror}") from error
        except expat.ExpatError as error:
            problem = f"malformed XML, {expat.ErrorString(error.code)}"
            raise DataError(f"{path}, line {error.lineno}: {problem}") from error
        except DataError:
            raise
        except (LookupError, ValueError) as error:  # an encoding that expat does not know
            raise DataError(f"{path}, line 1: {error}; save the file as UTF-8") from error
        self.root = self._builder.close()

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._lines[self._builder.start(tag, attributes)] = self._parser.CurrentLineNumber

    def _refuse_doctype(self, *_: object) -> None:
        raise DataError(f"{self.path}, line {self._parser.CurrentLineNumber}: a DOCTYPE is not allowed; remove it")

    def error(self, element: Element, problem: str) -> DataError:
        return DataError(f"{self.path}, line {self._lines[element]}: {problem}")

    def child(self, element: Element, tag: str) -> Element:
        found = element.find(tag)
        if found is None:
            raise self.error(element, f"<{element.tag}> has no <{tag}>")
        return found

    def number(self, element: Element, tag: str) -> float:
        found = self.child(element, tag)
        try:
            value = float(found.text or "")
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.error(found, f"<{tag}> is {found.text!r}, not a number")
        return value

    def pixels(self, element: Element, tag: str) -> int:
        found = self.child(element, tag)
        text = (found.text or "").strip()
        if not text.isdecimal() or int(text) == 0:
            raise self.error(found, f"<{tag}> is {found.text!r}, not a number of pixels")
        return int(text)

    def flag(self, element: Element, tag: str) -> bool:
        text = element.findtext(tag, "0")
        if text.strip() not in ("0", "1"):
            raise self.error(self.child(element, tag), f"<{tag}> is {text!r}, neither 0 nor 1")
        return text.strip() == "1"
