"""PASCAL VOC: the layout of a devkit, its annotations, and a check of all of it before any work."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from cvplugins.errors import DataError

from .class_names import ClassCounts
from .image_lists import read_image_list
from .image_readers import ImageReader, check_images
from .regular_files import read_bytes

__all__ = [
    "VOC_CLASSES",
    "DataError",
    "VOCAnnotation",
    "VOCObject",
    "VOCReport",
    "VOCSource",
    "VOCSplit",
    "annotation_problems",
    "check_voc",
    "check_voc_folders",
    "check_voc_source",
    "read_annotation",
    "read_split",
]

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)

HOW_TO_GET_VOC = (
    "To get VOC: `cvplugins data get voc0712` (2.9 GB) makes data/VOCdevkit; docs/data.md has other ways. "
    "To try without it: configs/voc_faster_rcnn_sample.py or, for Detectron2, "
    "configs/detectron2/voc_faster_rcnn_sample.yaml with data/sample/VOCdevkit"
)

LISTED = 10
OTHER_SUFFIXES = (".jpg", ".JPG", ".jpeg", ".JPEG", ".png", ".PNG", ".bmp", ".tif", ".webp")


@dataclass(frozen=True)
class VOCObject:
    """One object: class and box in the file's pixel coordinates, which start at 1 and include ``xmax``, ``ymax``.

    ``line`` is where the file says it.
    """

    name: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float
    difficult: bool = False
    truncated: bool = False
    pose: str = "Unspecified"
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True)
class VOCAnnotation:
    """One image's annotation.

    Attributes:
        filename: Empty if the file does not say.
        width: In pixels, or None if the file does not say.
        height: The same.
        objects: Those of the classes that were asked for, in the file's order.
        others: Class names of the objects that were left out.
    """

    filename: str
    width: int | None
    height: int | None
    objects: tuple[VOCObject, ...]
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class VOCSource:
    """Where the images of one list lie, and how their names may end."""

    image_list: Path
    images: Path
    annotations: Path
    suffixes: tuple[str, ...] = (".jpg",)

    @classmethod
    def of_devkit(cls, devkit: str | os.PathLike[str], year: str, split: str) -> VOCSource:
        """Return the places of VOC's own layout."""
        folder = Path(devkit) / year
        return cls(folder / "ImageSets" / "Main" / f"{split}.txt", folder / "JPEGImages", folder / "Annotations")

    def image(self, image_id: str) -> Path:
        """Return an image's path: the first one that exists, else the first one."""
        paths = [self.images / f"{image_id}{suffix}" for suffix in self.suffixes]
        return next((path for path in paths if path.exists()), paths[0])

    @property
    def name(self) -> str:
        """Year and split in VOC's own layout, else the path of the list."""
        parts = self.image_list.parts
        if parts[-3:-1] == ("ImageSets", "Main") and len(parts) > 3:
            return f"{parts[-4]} {self.image_list.stem}"
        return str(self.image_list)


@dataclass(frozen=True)
class VOCSplit:
    """What a split holds.

    Attributes:
        year: A folder of the devkit.
        name: Of the list.
        images: Whole images.
        objects: Of the classes that were asked for.
        difficult: How many of these are difficult.
        warnings: What is unusual about the images.
        counts: Objects by class, and by the names that were left out.
        unusable: ``(id, reason)`` for each object whose box is empty for the reader that was asked for.
    """

    year: str
    name: str
    images: int
    objects: int
    difficult: int
    warnings: tuple[str, ...] = ()
    counts: ClassCounts = field(default_factory=ClassCounts)
    unusable: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class VOCReport:
    """What `check_voc` found: a summary of each split, and ``(id, reason)`` for each image to leave out."""

    splits: tuple[VOCSplit, ...]
    broken: tuple[tuple[str, str], ...]


def read_annotation(path: str | os.PathLike[str], classes: Container[str] = VOC_CLASSES) -> VOCAnnotation:
    """Read one annotation file.

    ``size``, ``difficult``, ``truncated`` and ``pose`` may be absent, coordinates may be fractions, and what the
    other VOC tasters added (``part``, ``actions``) is passed over. A DOCTYPE is refused, because entities can blow
    up memory.

    Args:
        path: An XML file of ``Annotations/``.
        classes: Names of the objects to read; of others only the names are kept.

    Returns:
        The annotation; the objects in the file's order.

    Raises:
        DataError: The file is missing or not well-formed, an element is missing, a number is none, or a box is inside
            out; the message names file, line and what.

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
    elements = [(document.child(each, "name").text or "", each) for each in document.root.findall("object")]
    return VOCAnnotation(
        filename=document.root.findtext("filename", ""),
        # Some tools write 0 for what they do not know.
        width=None if size is None else document.pixels(size, "width") or None,
        height=None if size is None else document.pixels(size, "height") or None,
        objects=tuple(_read_object(document, name, each) for name, each in elements if name in classes),
        others=tuple(name for name, _ in elements if name not in classes),
    )


def annotation_problems(path: str | os.PathLike[str], classes: Container[str] = VOC_CLASSES) -> list[str]:
    """Return all for which :func:`read_annotation` refuses a file: of its size and of each object the first mistake."""
    problems = []

    def attempt(read: Callable[..., object], *arguments: object) -> None:
        try:
            read(*arguments)
        except DataError as error:
            problems.append(str(error))

    try:
        document = _Document(Path(path))
    except DataError as error:
        return [str(error)]
    size = document.root.find("size")
    if size is not None:
        for side in ("width", "height"):
            attempt(document.pixels, size, side)
    for element in document.root.findall("object"):
        name = element.find("name")
        if name is None:
            attempt(document.child, element, "name")
        elif (name.text or "") in classes:
            attempt(_read_object, document, name.text or "", element)
    return problems


def read_split(devkit: str | os.PathLike[str], year: str, split: str) -> list[str]:
    """Return the image ids that ``ImageSets/Main/{split}.txt`` lists, in its order.

    Args:
        devkit: The folder ``VOCdevkit``.
        year: A folder of the devkit, such as ``"VOC2007"``.
        split: A list's name, such as ``"trainval"``; per-class lists (``"dog_train"``), whose second column is a
            flag, give their first column. See :func:`read_image_list`.

    Raises:
        DataError: The list is missing, not text, empty, or names an image twice.
    """
    source = VOCSource.of_devkit(devkit, year, split)
    return list(read_image_list(source.image_list, source.annotations).ids)


def check_voc(
    devkit: str | os.PathLike[str],
    splits: Sequence[tuple[str, str]],
    *,
    classes: Sequence[str] = VOC_CLASSES,
    skip_broken: bool = False,
    reader: ImageReader | None = None,
) -> VOCReport:
    """Check everything that training and testing will read: folders, lists, annotations and images.

    Annotations are read in full; of an image its header, whose size is compared with the annotation's, and its end,
    where a truncated file shows. That takes 0.7 s for 1,000 images, and 0.4 s when their headers are in the cache.

    Args:
        devkit: The folder ``VOCdevkit``.
        splits: Pairs of year and split, such as ``("VOC2007", "trainval")``.
        classes: Names of the objects to read. Others are counted and left out.
        skip_broken: Report missing and broken images and annotations instead of raising.
        reader: What will read the images; one that reads any size and applies EXIF's orientation if None.

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
        source = VOCSource.of_devkit(devkit, year, split)
        check_voc_folders(source)
        summary, broken = check_voc_source(source, classes=classes, skip_broken=skip_broken, reader=reader)
        summaries.append(summary)
        all_broken += broken
    return VOCReport(tuple(summaries), tuple(all_broken))


def check_voc_source(
    source: VOCSource,
    *,
    classes: Container[str] = VOC_CLASSES,
    skip_broken: bool = False,
    reader: ImageReader | None = None,
    box_problem: Callable[[VOCObject, int | None, int | None], str | None] | None = None,
) -> tuple[VOCSplit, list[tuple[str, str]]]:
    """Check the images of one list; see :func:`check_voc`.

    Args:
        source: Where they lie.
        classes: Names of the objects to read.
        skip_broken: Return missing and broken images instead of raising.
        reader: What will read the images; see :func:`check_voc`.
        box_problem: Says what is wrong with an object, as the reader that will be used sees it, in an image of a width
            and height (None where the file does not say). None if nothing is.

    Returns:
        A summary, and ``(id, reason)`` for each image to leave out.

    Raises:
        DataError: See :func:`check_voc`.
    """
    ids = read_image_list(source.image_list, source.annotations).ids
    # Threads hide the latency of slow disks.
    with ThreadPoolExecutor(max_workers=8) as pool:
        checked = list(pool.map(lambda image_id: _annotation(source, image_id, classes), ids))
    checked, warnings = _with_images(source, ids, checked, reader or ImageReader())
    found = list(zip(ids, checked, strict=True))
    broken = [(image_id, each) for image_id, each in found if isinstance(each, str)]
    if broken and (not skip_broken or len(broken) == len(ids)):
        raise _broken_error(source.name, broken, len(ids))
    whole = [(image_id, each) for image_id, each in found if isinstance(each, VOCAnnotation)]
    counts = ClassCounts()
    unusable = []
    for image_id, annotation in whole:
        path = f"{source.annotations / image_id}.xml"
        for name in annotation.others:
            counts.leave_out(name, path)
        for each in annotation.objects:
            problem = box_problem and box_problem(each, annotation.width, annotation.height)
            if problem:
                unusable.append((image_id, f"{path}, line {each.line}: object {each.name!r}: {problem}"))
            counts.add(each.name, usable=not each.difficult and not problem)
    objects = [each for _, annotation in whole for each in annotation.objects]
    difficult = sum(each.difficult for each in objects)
    year, _, name = source.name.rpartition(" ")
    return VOCSplit(year, name, len(whole), len(objects), difficult, warnings, counts, tuple(unusable)), broken


def check_voc_folders(source: VOCSource) -> None:
    """Raise ``DataError`` unless the folders of a source exist; the message says how to get PASCAL VOC."""
    folders = [source.images, source.annotations, source.image_list.parent]
    root = Path(os.path.commonpath([folder.absolute() for folder in folders]))
    for part in (root, *folders):
        if not part.is_dir():
            layout = f"{root.name} needs {', '.join(f'{each.absolute().relative_to(root)}/' for each in folders)}"
            raise DataError(f"no VOC data: folder {part.absolute()} does not exist; {layout}. {HOW_TO_GET_VOC}")


def _annotation(source: VOCSource, image_id: str, classes: Container[str]) -> VOCAnnotation | str:
    """Return an image's annotation, or what is wrong with it."""
    try:
        return read_annotation(source.annotations / f"{image_id}.xml", classes)
    except DataError as error:
        return f"{error}{_other_spelling(source, image_id)}"


def _with_images(
    source: VOCSource, ids: Sequence[str], annotations: Sequence[VOCAnnotation | str], reader: ImageReader
) -> tuple[list[VOCAnnotation | str], tuple[str, ...]]:
    """Return the annotations whose images are whole and fit, what is wrong with the others, and warnings.

    Where an annotation does not say its image's size, the image does.
    """
    sizes = [
        (each.width, each.height) if isinstance(each, VOCAnnotation) and each.width and each.height else None
        for each in annotations
    ]
    found = check_images([source.image(image_id) for image_id in ids], reader, sizes, "its XML's <size>")
    checked: list[VOCAnnotation | str] = []
    for image_id, annotation, problem, header in zip(ids, annotations, found.problems, found.headers, strict=True):
        if isinstance(annotation, str):
            checked.append(annotation)
        elif problem is not None:
            checked.append(f"{problem}{_other_spelling(source, image_id)}")
        elif isinstance(header, DataError):  # only its loader knows the format
            checked.append(annotation)
        else:
            width, height = reader.size(header)
            checked.append(replace(annotation, width=annotation.width or width, height=annotation.height or height))
    return checked, found.warnings


def _other_spelling(source: VOCSource, image_id: str) -> str:
    """Return what is there in place of a missing image."""
    if source.image(image_id).exists():
        return ""
    others = (source.images / f"{image_id}{suffix}" for suffix in OTHER_SUFFIXES)
    found = next((path.name for path in others if path.exists()), None)
    if found is not None:
        return f"; there is {found}, but the reader looks for {' or '.join(source.suffixes)}: rename or convert it"
    return "; lists name images without folder and suffix" if Path(image_id).suffix in OTHER_SUFFIXES else ""


def _broken_error(split: str, broken: Sequence[tuple[str, str]], images: int) -> DataError:
    message = f"{split}: {len(broken)} of {images} images missing or broken: {broken[0][1]}"
    others = [image_id for image_id, _ in broken[1:]]
    if others:
        more = f" and {len(others) - LISTED} more" if len(others) > LISTED else ""
        message += f"; further: {', '.join(others[:LISTED])}{more}"
    leave_out = "leave them out: CVPLUGINS.DATA.SKIP_BROKEN in Detectron2, else skip_broken=True"
    problems = [reason for _, reason in broken]
    return DataError(f"{message}. Mend them, take them off the list, or {leave_out}", problems)


def _read_object(document: _Document, name: str, element: Element) -> VOCObject:
    box = document.child(element, "bndbox")
    xmin, ymin, xmax, ymax = (document.number(box, side) for side in ("xmin", "ymin", "xmax", "ymax"))
    if xmax < xmin or ymax < ymin:
        raise document.error(box, f"the box is inside out: xmin {xmin:g}, ymin {ymin:g}, xmax {xmax:g}, ymax {ymax:g}")
    difficult, truncated = document.flag(element, "difficult"), _is_marked(element.findtext("truncated", "0"))
    pose = element.findtext("pose", "Unspecified")
    return VOCObject(name, xmin, ymin, xmax, ymax, difficult, truncated, pose, document.line(element))


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
            self._parser.Parse(read_bytes(path, "annotation"), True)
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

    def line(self, element: Element) -> int:
        return self._lines[element]

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
        if not text.isdecimal():
            raise self.error(found, f"<{tag}> is {found.text!r}, not a number of pixels")
        return int(text)

    def flag(self, element: Element, tag: str) -> bool:
        text = element.findtext(tag, "0").strip()
        if re.fullmatch(r"[+-]?\d+", text) is None:
            raise self.error(self.child(element, tag), f"<{tag}> is {text!r}, not a whole number such as 0 or 1")
        return int(text) != 0


def _is_marked(text: str) -> bool:
    """Return whether a flag that no loader reads is set; tools leave it empty, or write a share such as 0.5."""
    try:
        return float(text) > 0
    except ValueError:
        return False
