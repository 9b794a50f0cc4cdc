"""PASCAL VOC's results: a text file a class, a line a detection."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Container, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvplugins.errors import DataError

from .text_files import read_text
from .typed_json import shown

__all__ = ["VocDetections", "read_voc_results"]

# How the names of results begin, by the devkit's pattern <comp>_<det or cls>_<split>_<class>.
OF_RESULTS = re.compile(r"(?:comp\d*|dets?|cls|voc\d*|results?|train|val|trainval|test|\d+)_", re.IGNORECASE)

# Boxes as in the file, scores, labels.
VocDetections = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]


def read_voc_results(
    folder: str | os.PathLike[str], classes: Sequence[str], images: Container[str | int] | None = None
) -> dict[str, VocDetections]:
    """Read a folder of files such as ``comp4_det_test_dog.txt``: ``image score xmin ymin xmax ymax`` a line.

    Args:
        folder: The folder; of each class one file, whose name ends with ``_<class>.txt``, or is ``<class>.txt``.
        classes: Names of the classes, which become labels.
        images: Names of the images, if they are known; another one is an error.

    Returns:
        Boxes ``(N, 4)`` in the file's pixels, counted from 1, scores and labels of each image that has any.

    Raises:
        DataError: A class has no file or two, or a line is none of these; the message names file and line.
    """
    rows: dict[str, list[tuple[list[float], float, int]]] = {}
    for label, path in enumerate(_files_of(Path(folder), classes)):
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            if line.strip():
                image, row = _row(path, number, line, label)
                if images is not None and image not in images:
                    raise DataError(f"{path}, line {number}: image {image!r} is none of the annotations'")
                rows.setdefault(image, []).append(row)
    return {image: _arrays(found) for image, found in rows.items()}


def _row(path: Path, number: int, line: str, label: int) -> tuple[str, tuple[list[float], float, int]]:
    parts = line.rsplit(maxsplit=5)  # names of images may have blanks
    try:
        score, *box = map(float, parts[1:])
    except ValueError:
        score, box = math.nan, []
    if len(box) != 4 or not all(map(math.isfinite, (score, *box))):
        raise DataError(f"{path}, line {number}: expected image, score, xmin, ymin, xmax, ymax, not {line!r}")
    # The last pixel is part of a box. Detectron2 writes boxes of less than a pixel with ends up to one apart.
    if box[2] < box[0] - 1 or box[3] < box[1] - 1:
        raise DataError(f"{path}, line {number}: the box {shown(box)} ends before it begins; xmin ymin xmax ymax")
    return parts[0].strip(), (box, score, label)


def _files_of(folder: Path, classes: Sequence[str]) -> list[Path]:
    """Return the file of each class; ``police_car.txt`` is none of the class ``car``."""
    files = {path.stem: path for path in sorted(folder.glob("*.txt"))}
    found: dict[str, list[str]] = {name: [] for name in classes}
    for stem in files:
        own = [name for name in found if stem == name or stem.endswith(f"_{name}")]
        if own:
            found[max(own, key=len)].append(stem)
    if any(len(stems) != 1 for stems in found.values()):
        found = _of_one_prefix(found)
    for name, stems in found.items():
        if len(stems) != 1:
            listed = ", ".join(files[stem].name for stem in stems) or "none"
            raise DataError(
                f"{folder}: expected one file of class {name}, such as comp4_det_test_{name}.txt; found {listed}"
            )
    return [files[found[name][0]] for name in classes]


def _of_one_prefix(found: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return of each class the files whose names begin as those of all other classes, if there are such."""
    prefixes = {name: {stem[: len(stem) - len(name)] for stem in stems} for name, stems in found.items()}
    shared = set.intersection(*prefixes.values()) if prefixes else set()
    # Where police_car is no class, car may have two beginnings: comp4_ and comp4_police_. The short one is its own.
    own = [each for each in shared if all(other.startswith(each) for other in shared)]
    if not own:
        return found
    begin = own[0]
    # Both car.txt and comp4_det_test_car.txt are results of cars: which of the two is meant cannot be told.
    return {
        name: [f"{each}{name}" for each in sorted(prefixes[name]) if each == begin or not _is_other_class(each, begin)]
        for name in found
    }


def _is_other_class(prefix: str, begin: str) -> bool:
    """Return whether a file with this prefix is of a class of a longer name, such as ``police_car``."""
    return prefix.startswith(begin) and not OF_RESULTS.match(prefix[len(begin) :])


def _arrays(rows: list[tuple[list[float], float, int]]) -> VocDetections:
    boxes, scores, labels = zip(*rows, strict=True)
    return np.array(boxes, np.float64), np.array(scores, np.float64), np.array(labels, np.int64)
