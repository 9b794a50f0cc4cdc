"""COCO's JSON files: annotations, and the results of a detector, as arrays of each image."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from cvplugins.errors import DataError

from .coco_fields import EXPECTED, AnnotationFile, CategoryEntry, ImageEntry, ResultEntry, checked_ids, refuse_twice
from .coco_masks import Segmentations, is_empty
from .typed_json import read_typed_json, shown

__all__ = ["CocoAnnotations", "CocoObjects", "CocoResults", "read_coco_annotations", "read_coco_results"]

logger = logging.getLogger(__name__)


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
        segmentations: Polygons or run lengths as the file has them, N of them or none; decoded when asked for.
        has_boxes: Whether the file has boxes.
    """

    boxes: NDArray[np.float64]
    xywh: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    scores: NDArray[np.float64]
    segmentations: Segmentations | tuple[()]
    has_boxes: bool = True

    def as_truth(self) -> dict[str, NDArray[Any]]:
        """Return the fields of ground truth that :class:`cvplugins.metrics.ImageDetections` takes."""
        return {
            "truth_boxes": self.boxes,
            "truth_labels": self.labels,
            "truth_areas": self.areas,
            "truth_sizes": self.xywh[:, 2:],
            "crowd": self.crowd,
        }

    def masks(self, height: int, width: int) -> list[Mapping[str, Any]]:
        """Return the segmentations as compressed run lengths of an image's size.

        Raises:
            DataError: A segmentation is malformed or does not fit the image; the message names file and entry.
            ImportError: pycocotools is not installed.
        """
        return self.segmentations.encoded(height, width) if self.segmentations else []


@dataclass(frozen=True)
class CocoAnnotations:
    """An annotation file.

    Attributes:
        path: Where it was read from.
        classes: Names of the categories, in the file's order, or those that were asked for; their ids are added where
            several have one name.
        category_ids: Their numbers or texts in the file.
        images: Objects of each image, by its number or text; images without objects included.
        sizes: Height and width of each image; 0 where the file does not say.
        names: File name of each image.
        others: Numbers or texts of the categories that were not asked for.
        in_file_order: Whether the categories come in the file's order.
    """

    path: str
    classes: tuple[str, ...]
    category_ids: tuple[int | str, ...]
    images: dict[int | str, CocoObjects]
    sizes: dict[int | str, tuple[int, int]]
    names: dict[int | str, str]
    others: frozenset[int | str] = frozenset()
    in_file_order: bool = True


CocoResults = dict[int | str, CocoObjects]


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
def read_coco_annotations(
    path: str | os.PathLike[str],
    classes: Sequence[str] | None = None,
    *,
    category_ids: Sequence[int | str] | None = None,
) -> CocoAnnotations:
    """Read an annotation file (``instances_val2017.json`` or one of its layout).

    Annotations of images that the file does not list are left out with a warning, as pycocotools leaves them out.
    Segmentations are looked at only when masks are asked for.

    Args:
        path: JSON with ``images``, ``annotations`` and ``categories``.
        classes: Names of the categories to keep, in the order in which labels count; all in the file's order if None.
        category_ids: Their ids instead of their names.

    Raises:
        DataError: The file cannot be read, a part, a key or a value is not as it should be, or a class is not a
            category; the message names the file, the entry, the key and the value.
    """
    content = read_typed_json(path, AnnotationFile, root="annotations", expected=_ANNOTATIONS)
    images, annotations = content.images, content.annotations
    image_ids = checked_ids(path, "images", "id", [each.id for each in images])
    refuse_twice(path, "images", image_ids)
    all_ids = checked_ids(path, "categories", "id", [each.id for each in content.categories])
    refuse_twice(path, "categories", all_ids)
    wanted = _chosen(path, content.categories, all_ids, classes, category_ids)
    kept_ids = [all_ids[index] for index in wanted]
    owners = checked_ids(path, "annotations", "image_id", [each.image_id for each in annotations])
    of = checked_ids(path, "annotations", "category_id", [each.category_id for each in annotations])
    labels = _labels(path, "annotations", of, kept_ids, set(all_ids), "which is none of its categories")
    labels[_of_no_image(path, owners, set(image_ids))] = -1
    return CocoAnnotations(
        path=str(path),
        classes=_distinct([content.categories[index].name for index in wanted], kept_ids),
        category_ids=tuple(kept_ids),
        images=_by_image(path, "annotations", annotations, image_ids, owners, labels),
        sizes={image: _size(each) for image, each in zip(image_ids, images, strict=True)},
        names={
            image: str(image if each.file_name is None else each.file_name)
            for image, each in zip(image_ids, images, strict=True)
        },
        others=frozenset(all_ids) - frozenset(kept_ids),
        in_file_order=wanted == sorted(wanted),
    )


@_no_collection()
def read_coco_results(path: str | os.PathLike[str], annotations: CocoAnnotations) -> CocoResults:
    """Read what a detector found, in COCO's format for results.

    Args:
        path: JSON with a list of ``image_id``, ``category_id``, ``score`` and ``bbox`` (``xywh``) or ``segmentation``.
        annotations: The file that it belongs to.

    Returns:
        Objects of each image. Other categories than those that the annotations were asked for are left out.

    Raises:
        DataError: The file cannot be read, a key or a value is not as it should be, or an image or a category is none
            of the annotations'; the message names the file, the entry, the key and the value.
    """
    entries = read_typed_json(path, list[ResultEntry], root="results", expected=_RESULTS)
    owners = checked_ids(path, "results", "image_id", [each.image_id for each in entries])
    for number, owner in enumerate(owners):
        if owner not in annotations.images:
            ids = next(iter(annotations.images), 0)
            raise DataError(
                f"{path}: results[{number}].image_id is {shown(owner)}, which is no image of {annotations.path}"
                f"{_other_kind(owner, ids)}"
            )
    of = checked_ids(path, "results", "category_id", [each.category_id for each in entries])
    known = annotations.others.union(annotations.category_ids)
    whose = f"which is no category of {annotations.path}"
    labels = _labels(path, "results", of, annotations.category_ids, known, whose)
    scores = np.array([each.score for each in entries], np.float64)
    _require(path, "results", "score", np.isfinite(scores), scores, EXPECTED["score"])
    return _by_image(path, "results", entries, list(annotations.images), owners, labels, scores)


_ANNOTATIONS = {**EXPECTED, "": "an object with images, annotations and categories; are these results?"}
_RESULTS = {**EXPECTED, "": "a list of results; are these annotations?"}


def _chosen(
    path: object,
    categories: Sequence[CategoryEntry],
    ids: Sequence[int | str],
    classes: Sequence[str] | None,
    category_ids: Sequence[int | str] | None,
) -> list[int]:
    """Return the places of the categories to keep, in the order in which labels count."""
    if category_ids is not None:
        missing = [each for each in category_ids if each not in ids]
        if missing:
            raise DataError(f"{path}: has no category of id {shown(missing[0])}; its ids: {', '.join(map(shown, ids))}")
        return [ids.index(each) for each in category_ids]
    if classes is None:
        return list(range(len(categories)))
    wanted = []
    names = [each.name for each in categories]
    for name in classes:
        if name not in names:
            raise DataError(f"{path}: has no category {name!r}; its categories: {', '.join(names)}")
        places = [place for place, each in enumerate(names) if each == name]
        if len(places) != list(classes).count(name):
            listed = ", ".join(shown(ids[place]) for place in places)
            raise DataError(
                f"{path}: {len(places)} of its categories are called {name!r} (id {listed}); the classes have to name "
                "it as often"
            )
        wanted.append(next(place for place in places if place not in wanted))
    return wanted


def _distinct(names: Sequence[str], ids: Sequence[int | str]) -> tuple[str, ...]:
    return tuple(
        f"{name} ({number})" if names.count(name) > 1 else name for name, number in zip(names, ids, strict=True)
    )


def _labels(
    path: object,
    part: str,
    given: Sequence[int | str],
    kept: Sequence[int | str],
    known: Collection[int | str],
    whose: str,
) -> NDArray[np.int64]:
    """Return the label of each entry, -1 for categories that are not kept."""
    label_of = dict.fromkeys(known, -1) | {each: label for label, each in enumerate(kept)}
    try:
        return np.fromiter(map(label_of.__getitem__, given), np.int64, len(given))
    except KeyError as error:
        number = next(i for i, each in enumerate(given) if each not in label_of)
        raise DataError(
            f"{path}: {part}[{number}].category_id is {shown(given[number])}, {whose}"
            f"{_other_kind(given[number], next(iter(known), 0))}"
        ) from error


def _other_kind(given: int | str, known: int | str) -> str:
    if isinstance(given, str) == isinstance(known, str):
        return ""
    return f"; ids are {'texts' if isinstance(known, str) else 'numbers'} there, such as {shown(known)}"


def _of_no_image(path: object, owners: Sequence[int | str], images: set[int | str]) -> list[int]:
    """Return which annotations are of images that the file does not list; never all of them."""
    if images.issuperset(owners):
        return []
    lost = [number for number, owner in enumerate(owners) if owner not in images]
    first, another = owners[lost[0]], _other_kind(owners[lost[0]], next(iter(images), 0))
    if another or len(lost) == len(owners):
        raise DataError(
            f"{path}: annotations[{lost[0]}].image_id is {shown(first)}, which is none of its images{another}"
        )
    message = (
        "%s: left out %d of %d annotations, of images that it does not list; the first: annotations[%d] of image %s"
    )
    logger.warning(message, path, len(lost), len(owners), lost[0], first)
    return lost


def _size(image: ImageEntry) -> tuple[int, int]:
    sides = [side if side is not None and 0 < side < 2**31 else 0 for side in (image.height, image.width)]
    return int(sides[0]), int(sides[1])


def _by_image(
    path: object,
    part: str,
    entries: Sequence[Any],
    image_ids: Sequence[int | str],
    owners: Sequence[int | str],
    labels: NDArray[np.int64],
    scores: NDArray[np.float64] | None = None,
) -> dict[int | str, CocoObjects]:
    """Return the entries of each image in their order; those with a negative label are left out."""
    place_of = {image: place for place, image in enumerate(image_ids)}
    place = np.fromiter((place_of.get(owner, -1) for owner in owners), np.int64, len(owners))
    xywh = _boxes(path, part, entries)
    has_boxes = not entries or bool(entries[0].bbox)
    areas, crowd = np.zeros(len(entries)), np.zeros(len(entries), bool)
    if scores is None:
        areas, crowd = _areas(path, entries, xywh), _crowds(path, entries)
        scores = np.ones(len(entries))
    has_masks = any(not is_empty(each.segmentation) for each in entries)
    order = np.argsort(place, kind="stable")
    order = order[labels[order] >= 0]
    start = np.searchsorted(place[order], np.arange(len(image_ids) + 1))
    xywh, labels, areas = xywh[order], labels[order], areas[order]
    crowd, scores = crowd[order], scores[order]
    corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    found = {}
    for number, image in enumerate(image_ids):
        own = slice(start[number], start[number + 1])
        masks: Segmentations | tuple[()] = ()
        if has_masks:
            chosen = order[own].tolist()
            masks = Segmentations(f"{path}: {part}", image, chosen, [entries[each].segmentation for each in chosen])
        columns = (corners[own], xywh[own], labels[own], areas[own], crowd[own], scores[own])
        found[image] = CocoObjects(*columns, masks, has_boxes)
    return found


def _boxes(path: object, part: str, entries: Sequence[Any]) -> NDArray[np.float64]:
    # Results of masks alone have no box, or [] for one.
    lengths = {0 if each.bbox is UNSET else len(each.bbox) for each in entries}
    if lengths <= {0} and all(each.segmentation is not UNSET for each in entries):
        return np.zeros((len(entries), 4))
    if lengths != {4}:
        number = next(i for i, each in enumerate(entries) if each.bbox is UNSET or len(each.bbox) != 4)
        box = entries[number].bbox
        if box is UNSET:
            either = "neither 'bbox' nor 'segmentation'" if entries[number].segmentation is UNSET else "no 'bbox'"
            raise DataError(f"{path}: {part}[{number}] has {either}")
        raise DataError(f"{path}: {part}[{number}].bbox is {shown(box)}; expected {EXPECTED['bbox']}")
    columns: Iterator[Any] = (each.bbox for each in entries)
    boxes = np.fromiter(chain.from_iterable(columns), np.float64, 4 * len(entries)).reshape(-1, 4)
    # Beyond, corners and areas would no longer be finite.
    _require(path, part, "bbox", np.abs(boxes).max(axis=1) < 1e150, boxes, "[x, y, width, height] in pixels")
    _require(path, part, "bbox", boxes[:, 2:].min(axis=1) >= 0, boxes, "a width and a height of at least 0")
    return boxes


def _areas(path: object, entries: Sequence[Any], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    missing = next((i for i, each in enumerate(entries) if each.area is UNSET and not each.bbox), None)
    if missing is not None:
        raise DataError(f"{path}: annotations[{missing}] has neither 'bbox' nor 'area'")
    of_box = boxes[:, 2] * boxes[:, 3]
    areas = np.array([of_box[i] if each.area is UNSET else each.area for i, each in enumerate(entries)], np.float64)
    _require(path, "annotations", "area", areas >= 0, areas, "a number of at least 0")
    return areas


def _crowds(path: object, entries: Sequence[Any]) -> NDArray[np.bool_]:
    flags = np.array([each.iscrowd for each in entries], np.float64)
    _require(path, "annotations", "iscrowd", (flags == 0) | (flags == 1), flags, EXPECTED["iscrowd"])
    return np.asarray(flags == 1)


def _require(path: object, part: str, key: str, fine: NDArray[np.bool_], values: NDArray[Any], wanted: str) -> None:
    if not fine.all():
        number = int(np.argmin(fine))
        value = values[number].tolist()
        raise DataError(f"{path}: {part}[{number}].{key} is {shown(value)}; expected {wanted}")
