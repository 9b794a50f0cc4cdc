"""Check an annotation file in COCO's format before a framework's loader reads it through pycocotools."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from msgspec import UNSET, Raw, Struct, UnsetType

from cvplugins.errors import DataError

from .coco_fields import EXPECTED, CategoryEntry, Id, Number, checked_ids, twice_problems
from .coco_masks import check_outlines
from .typed_json import read_typed_json, shown, type_problems

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
            entry, the key and the value of the first mistake, and ``problems`` has all of them.

    Example:
        >>> check_coco_file("/dev/null")
        Traceback (most recent call last):
        cvplugins.errors.DataError: /dev/null: cannot read the file, it is a device and not a file
    """
    if masks not in MASKS:
        raise ValueError(f"masks is {masks!r}; accepted: {', '.join(MASKS)}")
    problems: list[str] = []
    try:
        _check_content(path, masks, required, other_categories, lambda error: problems.append(str(error)))
    except DataError as error:  # after it nothing else can be looked at
        problems += error.problems
    if problems:
        raise DataError(problems[0], problems)


def _check_content(
    path: str | os.PathLike[str],
    masks: str,
    required: Collection[str],
    other_categories: bool,
    report: Callable[[DataError], None],
) -> None:
    try:
        # pycocotools opens the file without looking for a byte order mark.
        content = read_typed_json(path, _File, root="annotations", expected=_EXPECTED, allow_mark=False)
    except DataError as error:
        parts = {"images": _Image, "categories": CategoryEntry, "annotations": _Object}
        raise DataError(str(error), type_problems(path, parts, _EXPECTED)) from error
    images, objects = content.images, content.annotations
    image_ids = checked_ids(path, "images", "id", [each.id for each in images])
    for twice in twice_problems(path, "images", image_ids):
        report(twice)
    sizes = {}
    for number, (image, each) in enumerate(zip(image_ids, images, strict=True)):
        height = _side(path, number, "height", each.height, report)
        sizes[image] = (height, _side(path, number, "width", each.width, report))
    owners = checked_ids(path, "annotations", "image_id", [each.image_id for each in objects])
    read = [number for number, owner in enumerate(owners) if owner in sizes]
    if objects and not read:
        report(DataError(f"{path}: annotations[0].image_id is {shown(owners[0])}, which is none of its images"))
    _left_out(path, len(objects) - len(read), "whose images it does not list")
    _check_categories(path, content, other_categories, report)
    _check_same_ids(path, objects, read, report)
    for key in sorted(required):
        for number in (number for number in read if getattr(objects[number], key) is UNSET):
            report(DataError(f"{path}: annotations[{number}] has no {key!r}, which is read of every annotation"))
    _check_boxes(path, objects, read, "area" in required, report)
    if masks != "unread":
        outlines = {number: objects[number].segmentation for number in read if all(sizes[owners[number]])}
        without = check_outlines(path, outlines, [owners[number] for number in outlines], sizes, masks, report)
        _left_out(path, without, "which have no polygon of three points or more")


def _side(path: object, number: int, key: str, value: float, report: Callable[[DataError], None]) -> int:
    """Return a side of an image; 0 if it is reported."""
    if not 1 <= value < 2**31 or value % 1:
        report(DataError(f"{path}: images[{number}].{key} is {shown(value)}; expected a whole number of at least 1"))
        return 0
    return int(value)


def _check_categories(
    path: object, content: _File, other_categories: bool, report: Callable[[DataError], None]
) -> None:
    ids = checked_ids(path, "categories", "id", [each.id for each in content.categories])
    for twice in twice_problems(path, "categories", ids):
        report(twice)
    known = set(ids)
    given = checked_ids(path, "annotations", "category_id", [each.category_id for each in content.annotations])
    unknown = [number for number, each in enumerate(given) if each not in known]
    if unknown and (not other_categories or len(unknown) == len(given)):
        for number in unknown:
            report(
                DataError(
                    f"{path}: annotations[{number}].category_id is {shown(given[number])}, which is none of its "
                    "categories"
                )
            )
    _left_out(path, len(unknown), "whose categories it does not list")


def _check_same_ids(
    path: object, objects: Sequence[_Object], read: Sequence[int], report: Callable[[DataError], None]
) -> None:
    first: dict[Any, int] = {}
    for number in read:
        before = first.setdefault(objects[number].id, number)
        if before != number:
            report(
                DataError(
                    f"{path}: annotations[{number}].id is {shown(objects[number].id)}, as annotations[{before}].id is "
                    "already; number them anew"
                )
            )


def _check_boxes(
    path: object,
    objects: Sequence[_Object],
    read: Sequence[int],
    by_area: bool,
    report: Callable[[DataError], None],
) -> None:
    for number in (number for number in read if len(objects[number].bbox) != 4):
        box = shown(objects[number].bbox)
        report(DataError(f"{path}: annotations[{number}].bbox is {box}; expected {EXPECTED['bbox']}"))
    read = [number for number in read if len(objects[number].bbox) == 4]
    boxes = np.array([objects[number].bbox for number in read], np.float64).reshape(-1, 4)
    _left_out(path, int((boxes[:, 2:] < 0).any(axis=1).sum()), "whose width or height is negative")
    if by_area and read and all(objects[number].area is not UNSET for number in read):
        areas = np.array([objects[number].area for number in read], np.float64)
        if not (areas > 0).any():
            report(DataError(f"{path}: no annotation has an area above 0, and objects without area are left out"))
        _left_out(path, int(((areas <= 0) & (boxes[:, 2:] >= 1).all(axis=1)).sum()), "whose area is not above 0")


def _left_out(path: object, count: int, which: str) -> None:
    if count:
        logger.warning("%s: %d annotations are left out, %s", path, count, which)
