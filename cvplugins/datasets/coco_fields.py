"""What is read of COCO's JSON files, with its types; other keys are passed over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import UNSET, Raw, Struct, UnsetType

from cvplugins.errors import DataError

from .typed_json import shown

__all__ = [
    "EXPECTED",
    "AnnotationFile",
    "Id",
    "ImageEntry",
    "Number",
    "ObjectEntry",
    "ResultEntry",
    "checked_ids",
    "refuse_twice",
    "twice_problems",
]

Number = int | float
Id = int | float | str  # as a file has it; whole floats are made integers

EXPECTED = {
    "id": "a whole number or a text",
    "image_id": "a whole number or a text",
    "category_id": "a whole number or a text",
    "name": "a text",
    "file_name": "a text",
    "height": "a whole number",
    "width": "a whole number",
    "bbox": "[x, y, width, height]",
    "area": "a number",
    "iscrowd": "0 or 1",
    "score": "a number",
}


class ImageEntry(Struct, gc=False):
    """One of ``images``; nothing but masks needs its size."""

    id: Id
    file_name: str | Number | None = None
    height: Number | None = None
    width: Number | None = None


class CategoryEntry(Struct, gc=False):
    """One of ``categories``."""

    id: Id
    name: str


class ObjectEntry(Struct, gc=False):
    """One of ``annotations``; nothing but masks needs its segmentation, which is decoded then."""

    image_id: Id
    category_id: Id
    bbox: tuple[float, ...] | UnsetType = UNSET
    area: float | UnsetType = UNSET
    iscrowd: bool | float = 0.0
    segmentation: Raw | UnsetType = UNSET


class ResultEntry(Struct, gc=False):
    """One entry of a detector's results."""

    image_id: Id
    category_id: Id
    score: float
    bbox: tuple[float, ...] | UnsetType = UNSET
    segmentation: Raw | UnsetType = UNSET


class AnnotationFile(Struct):
    """A file of annotations."""

    images: list[ImageEntry]
    annotations: list[ObjectEntry]
    categories: list[CategoryEntry]


def checked_ids(path: object, part: str, key: str, given: Sequence[Any]) -> list[Any]:
    """Return ids, whole floats as integers.

    Raises:
        DataError: One is no whole number, or some are numbers and others texts; the message names the first.
    """
    kinds = set(map(type, given))
    if kinds <= {int} or kinds == {str}:
        return list(given)
    found: list[Any] = []
    for number, each in enumerate(given):
        if isinstance(each, float):
            if not each.is_integer():
                raise DataError(f"{path}: {part}[{number}].{key} is {each}; expected {EXPECTED[key]}")
            each = int(each)
        if found and isinstance(each, str) != isinstance(found[0], str):
            raise DataError(
                f"{path}: {part}[{number}].{key} is {shown(each)}, but {part}[0].{key} is {shown(found[0])}; expected "
                "numbers or texts alone"
            )
        found.append(each)
    return found


def refuse_twice(path: object, part: str, ids: Sequence[int | str]) -> None:
    """Raise ``DataError`` if an id comes twice."""
    for error in twice_problems(path, part, ids):
        raise error


def twice_problems(path: object, part: str, ids: Sequence[int | str]) -> Iterator[DataError]:
    """Yield an error for each id that came before."""
    if len(set(ids)) == len(ids):
        return
    first: dict[int | str, int] = {}
    for number, each in enumerate(ids):
        if each in first:
            yield DataError(f"{path}: {part}[{number}].id is {shown(each)}, as {part}[{first[each]}].id is already")
        first.setdefault(each, number)
