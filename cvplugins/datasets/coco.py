"""COCO's JSON files: annotations, and the results of a detector, as arrays of each image."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvplugins.errors import DataError

__all__ = ["CocoAnnotations", "CocoObjects", "CocoResults", "read_coco_annotations", "read_coco_results"]


@dataclass(frozen=True)
class CocoObjects:
    """The N objects of one image, or what was detected there.

    Attributes:
        boxes: ``xyxy`` in pixels, ``(N, 4)``; all zero for results that hold masks only.
        xywh: The same as the file has them: a width made from rounded corners differs in the last bits, ``(N, 4)``.
        labels: Class indices in the order of the categories, ``(N,)``.
        areas: Pixels of each object, ``(N,)``; 0 for results.
        crowd: Which stand for many objects, ``(N,)``.
        scores: Confidence, ``(N,)``; 1 for annotations.
        segmentations: Polygons or run lengths as the file has them, N of them or none.
    """

    boxes: NDArray[np.float64]
    xywh: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    scores: NDArray[np.float64]
    segmentations: Sequence[Any]

    def as_truth(self) -> dict[str, NDArray[Any]]:
        """Return the fields of ground truth that :class:`cvplugins.metrics.ImageDetections` takes."""
        return {
            "truth_boxes": self.boxes,
            "truth_labels": self.labels,
            "truth_areas": self.areas,
            "crowd": self.crowd,
        }

    def masks(self, height: int, width: int) -> list[Mapping[str, Any]]:
        """Return the segmentations as compressed run lengths of an image's size.

        Raises:
            ImportError: pycocotools is not installed.
        """
        try:
            from pycocotools import mask as coding
        except ImportError as error:
            raise ImportError("masks need pycocotools: pip install pycocotools") from error
        encoded = []
        for segmentation in self.segmentations:
            if isinstance(segmentation, list):  # polygons, of which an object may have several
                encoded.append(coding.merge(coding.frPyObjects(segmentation, height, width)))
            elif isinstance(segmentation["counts"], list):
                encoded.append(coding.frPyObjects(segmentation, height, width))
            else:
                encoded.append(segmentation)
        return encoded


@dataclass(frozen=True)
class CocoAnnotations:
    """An annotation file.

    Attributes:
        path: Where it was read from.
        classes: Names of the categories, in the file's order, or those that were asked for.
        category_ids: Their numbers in the file.
        images: Objects of each image, by its number; images without objects included.
        sizes: Height and width of each image, by its number; 0 where the file does not say.
        names: File name of each image, by its number.
    """

    path: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    images: dict[int, CocoObjects]
    sizes: dict[int, tuple[int, int]]
    names: dict[int, str]


CocoResults = dict[int, CocoObjects]


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from looking again and again through a million new entries, none of them garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_no_collection()
def read_coco_annotations(path: str | os.PathLike[str], classes: Sequence[str] | None = None) -> CocoAnnotations:
    """Read an annotation file (``instances_val2017.json`` or one of its layout).

    Args:
        path: JSON with ``images``, ``annotations`` and ``categories``.
        classes: Names of the categories to keep, which must be in the file's order; all if None.

    Raises:
        DataError: The file cannot be read, a part or a key is missing, or a class is not a category; the message
            names the file, the entry and the key.
    """
    content = _load(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, not an object; are these results?")
    images, categories = (_entries(path, content, name) for name in ("images", "categories"))
    annotations = _entries(path, content, "annotations")
    names = _column(path, "categories", categories, "name")
    wanted = list(range(len(names)))
    if classes is not None:
        missing = [name for name in classes if name not in names]
        if missing:
            raise DataError(f"{path}: has no category {missing[0]!r}; its categories: {', '.join(map(str, names))}")
        wanted = [names.index(name) for name in classes]
        if wanted != sorted(wanted):
            raise DataError(f"{path}: its categories have another order than the classes, and labels count by it")
    category_ids = [int(each) for each in _column(path, "categories", categories, "id")]
    kept_ids = [category_ids[index] for index in wanted]
    image_ids = [int(each) for each in _column(path, "images", images, "id")]
    if len(set(image_ids)) < len(image_ids):
        raise DataError(f"{path}: names image {next(each for each in image_ids if image_ids.count(each) > 1)} twice")
    label_of = dict(zip(kept_ids, range(len(kept_ids)), strict=True))
    known = set(category_ids)
    labels = []
    for number, category in enumerate(_column(path, "annotations", annotations, "category_id")):
        if category not in known:
            raise DataError(f"{path}: annotations[{number}] has category_id {category}, which is no category")
        labels.append(label_of.get(category, -1))
    by_image = _by_image(path, "annotations", annotations, image_ids, np.array(labels, np.int64))
    return CocoAnnotations(
        path=str(path),
        classes=tuple(names[index] for index in wanted),
        category_ids=tuple(kept_ids),
        images=by_image,
        sizes={each["id"]: (int(each.get("height", 0)), int(each.get("width", 0))) for each in images},
        names={each["id"]: str(each.get("file_name", each["id"])) for each in images},
    )


@_no_collection()
def read_coco_results(path: str | os.PathLike[str], annotations: CocoAnnotations) -> CocoResults:
    """Read what a detector found, in COCO's format for results.

    Args:
        path: JSON with a list of ``image_id``, ``category_id``, ``score`` and ``bbox`` (``xywh``) or ``segmentation``.
        annotations: The file that it belongs to.

    Returns:
        Objects of each image that has any, by its number. Other categories than the annotations' are left out.

    Raises:
        DataError: The file cannot be read, a key is missing, or an image is not one of the annotations'.
    """
    content = _load(path)
    if not isinstance(content, list):
        raise DataError(f"{path}: holds a {type(content).__name__}, not a list of results; are these annotations?")
    label_of = dict(zip(annotations.category_ids, range(len(annotations.classes)), strict=True))
    categories = _column(path, "results", content, "category_id")
    labels = np.fromiter((label_of.get(each, -1) for each in categories), np.int64, len(categories))
    return _by_image(path, "results", content, list(annotations.images), labels, scored=True)


def _load(path: str | os.PathLike[str]) -> Any:
    try:
        # Detectors write files of 100 MB; orjson reads them three times as fast, and is optional.
        from orjson import loads
    except ImportError:
        from json import loads
    try:
        return loads(Path(path).read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:  # orjson's error is a JSONDecodeError
        raise DataError(f"{path}: not JSON: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _entries(path: object, content: dict[str, Any], name: str) -> list[Any]:
    entries = content.get(name)
    if not isinstance(entries, list):
        raise DataError(
            f"{path}: has no list {name!r}; annotations in COCO's format have images, annotations, categories"
        )
    return entries


def _column(path: object, part: str, entries: Sequence[Any], key: str) -> list[Any]:
    try:
        return [entry[key] for entry in entries]
    except (KeyError, TypeError) as error:
        number = next(i for i, entry in enumerate(entries) if not isinstance(entry, dict) or key not in entry)
        raise DataError(f"{path}: {part}[{number}] has no {key!r}") from error


def _by_image(
    path: object,
    part: str,
    entries: Sequence[Any],
    image_ids: Sequence[int],
    labels: NDArray[np.int64],
    scored: bool = False,
) -> dict[int, CocoObjects]:
    """Return the entries of each image in their order; those with a negative label are left out."""
    place_of = dict(zip(image_ids, range(len(image_ids)), strict=True))
    owners = _column(path, part, entries, "image_id")
    try:
        place = np.fromiter(map(place_of.__getitem__, owners), np.int64, len(owners))
    except (KeyError, TypeError) as error:
        number, owner = next((i, each) for i, each in enumerate(owners) if each not in place_of)
        raise DataError(f"{path}: {part}[{number}] is of image {owner}, which the annotations do not list") from error
    has_boxes = bool(entries) and "bbox" in entries[0]
    has_masks = bool(entries) and "segmentation" in entries[0]
    if entries and not has_boxes and not has_masks:
        raise DataError(f"{path}: {part}[0] has neither 'bbox' nor 'segmentation'")
    boxes = _boxes(path, part, entries) if has_boxes else np.zeros((len(entries), 4))
    masks = _column(path, part, entries, "segmentation") if has_masks else []
    scores = np.array(_column(path, part, entries, "score") if scored else np.ones(len(entries)), np.float64)
    if scored:
        areas, crowd = np.zeros(len(entries)), np.zeros(len(entries), bool)
    else:
        areas = np.array([e.get("area", b[2] * b[3]) for e, b in zip(entries, boxes, strict=True)], np.float64)
        crowd = np.array([bool(entry.get("iscrowd", 0)) for entry in entries], bool)
    order = np.argsort(place, kind="stable")
    order = order[labels[order] >= 0]
    start = np.searchsorted(place[order], np.arange(len(image_ids) + 1))
    xywh, labels, areas = boxes[order], labels[order], areas[order]
    crowd, scores = crowd[order], scores[order]
    corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    found = {}
    for number, image_id in enumerate(image_ids):
        own = slice(start[number], start[number + 1])
        chosen = [masks[index] for index in order[own]] if has_masks else ()
        found[image_id] = CocoObjects(corners[own], xywh[own], labels[own], areas[own], crowd[own], scores[own], chosen)
    return found


def _boxes(path: object, part: str, entries: Sequence[Any]) -> NDArray[np.float64]:
    column = _column(path, part, entries, "bbox")
    try:
        flat = np.fromiter(chain.from_iterable(column), np.float64)
        return flat.reshape(len(column), 4)
    except (TypeError, ValueError) as error:
        wrong = (i for i, box in enumerate(column) if not isinstance(box, list) or len(box) != 4)
        number = next(wrong, 0)
        raise DataError(f"{path}: {part}[{number}]: bbox is {column[number]!r}, expected [x, y, w, h]") from error
