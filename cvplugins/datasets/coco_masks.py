"""Masks of COCO's files: polygons and run lengths are checked and bounded before pycocotools gets them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from cvplugins.errors import DataError, refuse

from .coco_fields import Number
from .run_lengths import LARGEST, runs_problem, size_problem, sum_problem, sums_of_compressed
from .typed_json import shown

__all__ = ["Segmentations", "check_outlines", "encoded_segmentations", "is_empty"]

FORMS = "expected polygons such as [[x, y, x, y, x, y]] or run lengths with size and counts"
CHUNK = 10_000  # masks whose run lengths are added up at once
EMPTY = {b"null", b"[]", b"[[]]", b"{}", b'""'}
# How far outside the image a point may lie, in sides and in pixels: compiled code makes room for the whole outline.
FAR, FAR_PIXELS = 10, 1000


class _Runs(Struct, gc=False):
    size: list[Number]
    counts: str | list[Number]


_DECODER = msgspec.json.Decoder(list[list[float]] | _Runs)


@dataclass(frozen=True)
class Segmentations(Sequence[Any]):
    """The segmentations of an image's objects, decoded when they are asked for.

    Attributes:
        where: File and list that they are from, for messages.
        image: The image's number or name.
        entries: Place of each in the list.
        raw: JSON of each, or UNSET.
    """

    where: str
    image: int | str
    entries: Sequence[int]
    raw: Sequence[Raw | UnsetType]

    def __len__(self) -> int:
        return len(self.raw)

    def __getitem__(self, index: Any) -> Any:
        raw = self.raw[index]
        if isinstance(raw, Sequence):
            return [None if each is UNSET else msgspec.json.decode(each) for each in raw]
        return None if raw is UNSET else msgspec.json.decode(raw)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def encoded(self, height: int, width: int) -> list[Mapping[str, Any]]:
        """Return all as compressed run lengths.

        Raises:
            DataError: One is none; the message names file, entry, image and value.
        """
        values = [self._value(place) for place in range(len(self))]
        return encoded_segmentations(values, height, width, self._place)

    def _value(self, place: int) -> Any:
        try:
            return _decoded(self.raw[place])
        except ValueError as error:
            raise DataError(f"{self._place(place)} {error}") from error

    def _place(self, place: int) -> str:
        return f"{self.where}[{self.entries[place]}].segmentation (image {self.image})"


def check_outlines(
    path: object,
    outlines: Mapping[int, Raw | UnsetType],
    images: Sequence[int | str],
    sizes: Mapping[int | str, tuple[int, int]],
    masks: str,
    report: Callable[[DataError], None] = refuse,
) -> int:
    """Check the segmentations of a file; a loader leaves out polygons of less than three points itself.

    Args:
        path: Their file.
        outlines: Each, by its place among the annotations.
        images: The image of each.
        sizes: Height and width of each image.
        masks: ``"optional"``, ``"needed"`` or ``"evaluated"``; see :func:`cvplugins.datasets.check_coco_file`.
        report: Takes each error; raises it if not given.

    Returns:
        How many have no polygon that can be used.

    Raises:
        DataError: One is malformed or does not fit its image, or is missing.
    """
    without = 0
    compressed = []
    for (number, raw), image in zip(outlines.items(), images, strict=True):
        if masks == "optional" and is_empty(raw):
            continue
        problem = None
        try:
            value = _decoded(raw)
        except ValueError as error:
            value, problem = None, str(error)
        if isinstance(value, list) and masks == "evaluated":
            problem = _polygons_problem(value, *sizes[image])
        elif isinstance(value, list):
            usable = [polygon for polygon in value if len(polygon) % 2 == 0 and len(polygon) >= 6]
            without += not usable
            problem = _polygons_problem(usable, *sizes[image]) if usable else None if value else f"is empty; {FORMS}"
        elif value is not None:
            problem = size_problem(value["size"], *sizes[image])
            if isinstance(value["counts"], list):
                problem = problem or runs_problem(value["counts"], value["size"])
            elif problem is None:
                compressed.append((number, image, value))
        if problem is not None:
            report(DataError(f"{path}: annotations[{number}].segmentation (image {image}) {problem}"))
    for start in range(0, len(compressed), CHUNK):
        chunk = compressed[start : start + CHUNK]
        totals = sums_of_compressed([value["counts"].encode() for _, _, value in chunk])
        for (number, image, value), total in zip(chunk, totals.tolist(), strict=True):
            problem = sum_problem(total, value["size"])
            if problem is not None:
                report(DataError(f"{path}: annotations[{number}].segmentation (image {image}) {problem}"))
    return without


def _decoded(raw: Raw | UnsetType) -> Any:
    """Return polygons, or a dict with size and counts.

    Raises:
        ValueError: It is neither; the message is what comes after the place.
    """
    if raw is UNSET:
        raise ValueError(f"is missing; {FORMS}")
    try:
        found = _DECODER.decode(raw)
    except msgspec.ValidationError as error:
        value = msgspec.json.decode(raw)
        missing = [key for key in ("size", "counts") if key not in value] if isinstance(value, dict) else []
        if len(missing) == 1:
            raise ValueError(f"has no {missing[0]!r}; {FORMS}") from error
        raise ValueError(f"is {shown(value)}; {FORMS}") from error
    return found if isinstance(found, list) else {"size": found.size, "counts": found.counts}


def is_empty(raw: Raw | UnsetType) -> bool:
    """Return whether a segmentation is left out, or what tools write where there is none."""
    return raw is UNSET or bytes(raw) in EMPTY


def encoded_segmentations(values: Sequence[Any], height: int, width: int, place: Any) -> list[Mapping[str, Any]]:
    """Return polygons and run lengths of an image as compressed run lengths.

    Args:
        values: Lists of polygons, each a list of numbers, or mappings with ``size`` and ``counts``.
        height: Of the image, 0 if it is unknown; polygons need it.
        width: Likewise.
        place: Returns what a message calls a segmentation by its index.

    Raises:
        DataError: One is malformed or does not fit the image.
        ImportError: pycocotools is not installed.
    """
    try:
        from pycocotools import mask as coding
    except ImportError as error:
        raise ImportError("masks need pycocotools: pip install pycocotools") from error
    encoded: list[Mapping[str, Any]] = []
    compressed = []
    for index, value in enumerate(values):
        polygons = isinstance(value, list)
        problem = _polygons_problem(value, height, width) if polygons else size_problem(value["size"], height, width)
        if problem is None and not polygons and isinstance(value["counts"], list):
            problem = runs_problem(value["counts"], value["size"])
        if problem is not None:
            raise DataError(f"{place(index)} {problem}")
        if polygons:
            whole = [polygon for polygon in value if len(polygon) >= 6]  # the others cover nothing
            encoded.append(coding.merge(coding.frPyObjects(whole, height, width)))
        elif isinstance(value["counts"], list):
            runs = {"size": [int(side) for side in value["size"]], "counts": [int(each) for each in value["counts"]]}
            encoded.append(coding.frPyObjects(runs, *runs["size"]))
        else:
            compressed.append(index)
            encoded.append({**value, "size": [int(side) for side in value["size"]]})
    written = [_as_bytes(values[index]["counts"]) for index in compressed]
    for index, total in zip(compressed, sums_of_compressed(written).tolist(), strict=True):
        problem = sum_problem(total, values[index]["size"])
        if problem is not None:
            raise DataError(f"{place(index)} {problem}")
    return encoded


def _as_bytes(counts: str | bytes) -> bytes:
    return counts if isinstance(counts, bytes) else counts.encode()


def _polygons_problem(polygons: list[list[float]], height: int, width: int) -> str | None:
    # As pycocotools, which takes four numbers for a box and fails, and lets later polygons have two points or none.
    if not polygons or len(polygons[0]) < 6 or any(len(polygon) % 2 for polygon in polygons):
        return f"is {shown(polygons)}; expected polygons of at least three points, [[x, y, x, y, x, y, ...]]"
    if min(height, width) < 1 or height * width > LARGEST:
        known = " and ".join(str(side or "unknown") for side in (height, width))
        return f"is polygons, but the height and width of the image are {known}; correct them in its entry"
    for polygon in polygons:
        for sides, limit in ((polygon[::2], width), (polygon[1::2], height)):
            far = max(FAR * limit, FAR_PIXELS)
            for side in (min(sides, default=0), max(sides, default=0)):
                if not math.isfinite(side) or not -far <= side <= limit + far:
                    return f"has a point at {side:g}, far outside the image of {height} x {width} (height x width)"
    return None
