"""Check an annotation file in COCO's format before a framework's loader reads it through pycocotools."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from msgspec import UNSET, Raw, Struct, UnsetType

from cvplugins.errors import DataError

from .coco_fields import EXPECTED, CategoryEntry, Id, Number, checked_ids, refuse_twice
from .coco_masks import check_outlines
from .typed_json import read_typed_json, shown

__all__ = ["check_coco_file"]

logger = logging.getLogger(__name__)

MASKS = ("unread", "optional", "needed", "evaluated")
_EXPECTED = {**EXPECTED, "": "an object with images, annotations and categories, as in COCO's format"}


class _Image(Struct, gc=False):
    id: Id
    file_name: str
    height: Number
    width: Number


class _Object(Struct, gc=False):
    id: Id
    image_id: Id
    category_id: Id
    bbox: tuple[float, ...]
    area: float | UnsetType = UNSET
    iscrowd: bool | float | UnsetType = UNSET
    segmentation: Raw | UnsetType = UNSET


class _File(Struct):
    images: list[_Image]
    categories: list[CategoryEntry]
    annotations: list[_Object] = []  # those of a test set are often kept secret


def check_coco_file(
    path: str | os.PathLike[str],
    *,
    masks: str = "unread",
    required: Collection[str] = (),
    other_categories: bool = False,
) -> None:
    """Check that a loader can read a file; what it leaves out without harm is a warning.

    Args:
        path: JSON with ``images``, ``annotations`` and ``categories``.
        masks: Whether segmentations are read: ``"unread"``, ``"optional"``, ``"needed"``, or ``"evaluated"`` by
            pycocotools, which takes no polygons of two points.
        required: What it reads of each annotation besides ids and boxes: ``"area"``, ``"iscrowd"``.
        other_categories: Whether it leaves out annotations of categories that the file does not list.

    Raises:
        DataError: The file cannot be read, or a key or a value is not as it should be; the message names the file, the
            entry, the key and the value.

    Example:
        >>> check_coco_file("/dev/null")
        Traceback (most recent call last):
        cvplugins.errors.DataError: /dev/null: cannot read the file, it is a device and not a file
    """
    if masks not in MASKS:
        raise ValueError(f"masks is {masks!r}; accepted: {', '.join(MASKS)}")
    # pycocotools opens the file without looking for a byte order mark.
    content = read_typed_json(path, _File, root="annotations", expected=_EXPECTED, allow_mark=False)
    images, objects = content.images, content.annotations
    image_ids = checked_ids(path, "images", "id", [each.id for each in images])
    refuse_twice(path, "images", image_ids)
    sizes = {}
    for number, (image, each) in enumerate(zip(image_ids, images, strict=True)):
        sizes[image] = (_side(path, number, "height", each.height), _side(path, number, "width", each.width))
    owners = checked_ids(path, "annotations", "image_id", [each.image_id for each in objects])
    read = [number for number, owner in enumerate(owners) if owner in sizes]
    if objects and not read:
        raise DataError(f"{path}: annotations[0].image_id is {shown(owners[0])}, which is none of its images")
    _left_out(path, len(objects) - len(read), "whose images it does not list")
    _check_categories(path, content, other_categories)
    _refuse_same_ids(path, objects, read)
    for key in sorted(required):
        missing = next((number for number in read if getattr(objects[number], key) is UNSET), None)
        if missing is not None:
            raise DataError(f"{path}: annotations[{missing}] has no {key!r}, which is read of every annotation")
    _check_boxes(path, objects, read, "area" in required)
    if masks != "unread":
        outlines = {number: objects[number].segmentation for number in read}
        without = check_outlines(path, outlines, [owners[number] for number in read], sizes, masks)
        _left_out(path, without, "which have no polygon of three points or more")


def _side(path: object, number: int, key: str, value: float) -> int:
    if not 1 <= value < 2**31 or value % 1:
        raise DataError(f"{path}: images[{number}].{key} is {shown(value)}; expected a whole number of at least 1")
    return int(value)


def _check_categories(path: object, content: _File, other_categories: bool) -> None:
    ids = checked_ids(path, "categories", "id", [each.id for each in content.categories])
    refuse_twice(path, "categories", ids)
    known = set(ids)
    given = checked_ids(path, "annotations", "category_id", [each.category_id for each in content.annotations])
    unknown = [number for number, each in enumerate(given) if each not in known]
    if unknown and (not other_categories or len(unknown) == len(given)):
        raise DataError(
            f"{path}: annotations[{unknown[0]}].category_id is {shown(given[unknown[0]])}, which is none of its "
            "categories"
        )
    _left_out(path, len(unknown), "whose categories it does not list")


def _refuse_same_ids(path: object, objects: Sequence[_Object], read: Sequence[int]) -> None:
    first: dict[Any, int] = {}
    for number in read:
        before = first.setdefault(objects[number].id, number)
        if before != number:
            raise DataError(
                f"{path}: annotations[{number}].id is {shown(objects[number].id)}, as annotations[{before}].id is "
                "already; number them anew"
            )


def _check_boxes(path: object, objects: Sequence[_Object], read: Sequence[int], by_area: bool) -> None:
    wrong = next((number for number in read if len(objects[number].bbox) != 4), None)
    if wrong is not None:
        box = shown(objects[wrong].bbox)
        raise DataError(f"{path}: annotations[{wrong}].bbox is {box}; expected {EXPECTED['bbox']}")
    boxes = np.array([objects[number].bbox for number in read], np.float64).reshape(-1, 4)
    _left_out(path, int((boxes[:, 2:] < 0).any(axis=1).sum()), "whose width or height is negative")
    if by_area and read:
        areas = np.array([objects[number].area for number in read], np.float64)
        if not (areas > 0).any():
            raise DataError(f"{path}: no annotation has an area above 0, and objects without area are left out")
        _left_out(path, int(((areas <= 0) & (boxes[:, 2:] >= 1).all(axis=1)).sum()), "whose area is not above 0")


def _left_out(path: object, count: int, which: str) -> None:
    if count:
        logger.warning("%s: %d annotations are left out, %s", path, count, which)
