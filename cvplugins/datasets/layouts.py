"""Recognise the layout of a data set by what its folder holds, and find its splits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from cvplugins.errors import UserError

from .image_lists import read_image_list
from .voc import VOCSource

__all__ = ["LAYOUTS", "DataSplit", "find_splits", "image_paths", "is_held_out"]

LAYOUTS = ("voc", "coco", "labels")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
LABEL_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
# How folders of images and of label maps are called, and what the names of the splits may be.
PAIRS = (
    ("images", "annotations"),
    ("images", "labels"),
    ("images", "masks"),
    ("img_dir", "ann_dir"),
    ("leftImg8bit", "gtFine"),
    ("JPEGImages", "SegmentationClass"),
)
VOC_LISTS = ("trainval", "train", "val", "test")


@dataclass(frozen=True)
class DataSplit:
    """A part of a data set, such as what is trained on.

    Attributes:
        layout: One of ``LAYOUTS``.
        name: Such as ``"VOC2007 trainval"``.
        source: Where PASCAL VOC's files lie.
        annotations: COCO's file.
        images: The folder of COCO's images.
        pairs: Images and label maps.
        orphans: Label maps without an image.
    """

    layout: str
    name: str
    source: VOCSource | None = None
    annotations: Path | None = None
    images: Path | None = None
    pairs: tuple[tuple[Path, Path], ...] = ()
    orphans: tuple[Path, ...] = ()


def is_held_out(name: str) -> bool:
    """Return whether a split is for validation or testing, by its name.

    >>> [is_held_out(name) for name in ("VOC2007 trainval", "VOC2007 test", "instances_val2017", "training")]
    [False, True, True, False]
    """
    name = name.lower().replace("trainval", "train")
    return "test" in name or "val" in name


def find_splits(
    root: str | os.PathLike[str],
    layout: str | None = None,
    splits: Sequence[str] = (),
    images: str | os.PathLike[str] | None = None,
) -> list[DataSplit]:
    """Return the splits of a data set.

    Args:
        root: A VOC devkit or a folder of it; a COCO JSON, or a folder that holds some or has ``annotations/`` with
            some; or a folder with a folder of images and one of label maps.
        layout: ``"voc"``, ``"coco"`` or ``"labels"``; recognised if None.
        splits: Names of those to take; all if empty, but of VOC's ``trainval``, ``train`` and ``val`` only the first
            that is there, or the last two.
        images: The folder of COCO's images; looked for if None.

    Raises:
        UserError: There is no such data, or no such split.
    """
    path = Path(root)
    if not path.exists():
        raise UserError(f"{path.absolute()} does not exist; expected a folder of data, a COCO JSON or a config")
    finders = {"voc": _voc, "coco": lambda place: _coco(place, images), "labels": _label_maps}
    for name, find in finders.items():
        if layout in (None, name):
            found = find(path)
            if found:
                return _chosen(found, splits, path)
    kind = {"voc": "ImageSets/Main with lists", "coco": "JSON with images and annotations"}.get(layout or "")
    expected = kind or ("a folder of images beside one of label maps" if layout else "ImageSets/Main, a COCO JSON, or")
    more = "" if layout else " a folder of images beside one of label maps; or name it by --layout"
    raise UserError(f"{path.absolute()}: not recognised as data; looked for {expected}{more}")


def _chosen(found: Sequence[DataSplit], splits: Sequence[str], root: Path) -> list[DataSplit]:
    if not splits:
        contained = {
            each.name
            for each in found
            if each.layout == "voc" and each.name.rpartition(" ")[2] in ("train", "val")
            if any(other.name == f"{each.name.rpartition(' ')[0]} trainval" for other in found)
        }
        return [each for each in found if each.name not in contained]
    chosen = []
    for split in splits:
        named = [each for each in found if split in (each.name, each.name.rpartition(" ")[2], each.name.split("_")[-1])]
        if not named:
            raise UserError(f"{root}: has no split {split!r}; there are {', '.join(each.name for each in found)}")
        chosen += named
    return list(dict.fromkeys(chosen))


def _voc(root: Path) -> list[DataSplit]:
    if not root.is_dir():
        return []
    folders = [each for each in (root, *sorted(root.iterdir())) if (each / "ImageSets" / "Main").is_dir()]
    found = []
    for folder in folders:
        lists = {path.stem: path for path in sorted((folder / "ImageSets" / "Main").glob("*.txt"))}
        known = [name for name in VOC_LISTS if name in lists]
        # Lists of one class end in the name of a split; they hold the same images.
        others = [name for name in lists if name not in known and not name.endswith(tuple(f"_{x}" for x in VOC_LISTS))]
        for name in (*known, *others):
            source = VOCSource(
                lists[name], folder / "JPEGImages", folder / "Annotations", (".jpg", ".JPG", ".jpeg", ".JPEG", ".png")
            )
            found.append(DataSplit("voc", source.name, source=source))
    return found


class _Listed(msgspec.Struct):
    file_name: Any = None


class _Looked(msgspec.Struct):
    images: list[_Listed]
    annotations: list[msgspec.Raw] = []
    categories: list[msgspec.Raw] = []


def _coco(root: Path, images: str | os.PathLike[str] | None) -> list[DataSplit]:
    if root.is_file():
        files = [root]
    else:
        files = sorted(root.glob("*.json")) or sorted(root.glob("annotations/*.json"))
        instances = [path for path in files if path.name.startswith("instances_")]
        files = instances or files
    found = []
    for path in files:
        listed = _listed(path)
        if listed is None and not root.is_file():
            continue  # another kind of file
        folder = Path(images) if images is not None else _image_folder(path, listed or [])
        found.append(DataSplit("coco", path.stem, annotations=path, images=folder))
    return found


def _listed(path: Path) -> list[str] | None:
    """Return the file names of a JSON's first images; None if it is no annotation file."""
    try:
        content = msgspec.json.decode(path.read_bytes(), type=_Looked)
    except (OSError, msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    return [str(each.file_name) for each in content.images[:10]]


def _image_folder(path: Path, names: Sequence[str]) -> Path:
    """Return the folder below which most of the first images are."""
    parent = path.parent
    split = path.stem.split("_")[-1]
    near = [each for each in (parent, parent.parent) for each in (each, each / "images", each / split)]
    near += [parent / "images" / split, parent.parent / "images" / split]
    near += [each for base in (parent, parent.parent) for each in sorted(base.iterdir()) if each.is_dir()]
    scores = [sum((folder / name).is_file() for name in names) for folder in near]
    return near[scores.index(max(scores))] if scores else parent


def _label_maps(root: Path) -> list[DataSplit]:
    if not root.is_dir():
        return []
    known = [pair for pair in PAIRS if all((root / each).is_dir() for each in pair)]
    for images, labels in known or _guessed(root):
        found = []
        below = sorted(each.name for each in (root / images).iterdir() if each.is_dir())
        for name in [each for each in below if (root / labels / each).is_dir()] or [""]:
            split = _pairs(name or root.name, root / images / name, root / labels / name)
            if split.pairs:
                found.append(split)
        if found:
            return found
    return []


def _guessed(root: Path) -> list[tuple[str, str]]:
    """Return folders of images and of files with the same stems, of which the second hold label maps."""
    folders = [each for each in sorted(root.iterdir()) if each.is_dir()]
    found = []
    for images in folders:
        for labels in folders:
            if images != labels and _is_label_map(next(_files(labels, LABEL_SUFFIXES), None)):
                first = next(_files(images, IMAGE_SUFFIXES), None)
                if first is not None and not _is_label_map(first):
                    found.append((images.name, labels.name))
    return found


def _files(folder: Path, suffixes: Sequence[str]) -> Any:
    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in suffixes)


def _is_label_map(path: Path | None) -> bool:
    """Return whether an image has one channel without being a photograph's JPEG."""
    if path is None or path.suffix.lower() not in LABEL_SUFFIXES:
        return False
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.mode in ("1", "L", "P", "I", "I;16")
    except (OSError, ValueError):
        return False


def _pairs(name: str, images: Path, labels: Path) -> DataSplit:
    """Pair files by their paths below the folders, without what the two kinds add to their names."""
    by_stem = {_bare(path, labels): path for path in _files(labels, LABEL_SUFFIXES)}
    photographs = {_bare(path, images): path for path in _files(images, IMAGE_SUFFIXES)}
    if not photographs or not by_stem:
        return DataSplit("labels", name)
    pairs = [(path, by_stem.get(stem, labels / f"{stem}.png")) for stem, path in photographs.items()]
    orphans = tuple(path for stem, path in by_stem.items() if stem not in photographs)
    return DataSplit("labels", name, pairs=tuple(pairs), orphans=orphans)


def _bare(path: Path, folder: Path) -> str:
    stem = str(path.relative_to(folder).with_suffix(""))
    for suffix in ("_leftImg8bit", "_gtFine_labelTrainIds"):
        stem = stem.removesuffix(suffix)
    return stem


def image_paths(split: DataSplit) -> list[Path]:
    """Return the images of a split, those that are there.

    Raises:
        DataError: Its list or annotation file cannot be read.
    """
    if split.source is not None:
        ids = read_image_list(split.source.image_list, split.source.annotations).ids
        paths = [split.source.image(image_id) for image_id in ids]
    elif split.annotations is not None and split.images is not None:
        from .coco import read_coco_annotations

        paths = [split.images / name for name in read_coco_annotations(split.annotations).names.values()]
    else:
        paths = [image for image, _ in split.pairs]
    return [path for path in paths if path.is_file()]
