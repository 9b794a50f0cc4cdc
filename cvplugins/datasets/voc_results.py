"""PASCAL VOC's results: a text file a class, a line a detection."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvplugins.errors import DataError

__all__ = ["VocDetections", "read_voc_results"]

# Boxes as in the file, scores, labels.
VocDetections = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]


def read_voc_results(folder: str | os.PathLike[str], classes: Sequence[str]) -> dict[str, VocDetections]:
    """Read a folder of files such as ``comp4_det_test_dog.txt``: ``image score xmin ymin xmax ymax`` a line.

    Args:
        folder: The folder; of each class one file, whose name ends with ``_<class>.txt``, or is ``<class>.txt``.
        classes: Names of the classes, which become labels.

    Returns:
        Boxes ``(N, 4)`` in the file's pixels, counted from 1, scores and labels of each image that has any.

    Raises:
        DataError: A class has no file or two, or a line is none of these; the message names file and line.
    """
    rows: dict[str, list[tuple[list[float], float, int]]] = {}
    for label, name in enumerate(classes):
        path = _file_of(Path(folder), name)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as text: {error}") from error
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            parts = line.split()
            try:
                image, score, *box = parts[0], *map(float, parts[1:])
            except ValueError:
                image, score, box = parts[0], math.nan, []
            if len(box) != 4 or not all(map(math.isfinite, (score, *box))):
                raise DataError(f"{path}, line {number}: expected image, score, xmin, ymin, xmax, ymax, not {line!r}")
            rows.setdefault(image, []).append((box, score, label))
    return {image: _arrays(found) for image, found in rows.items()}


def _file_of(folder: Path, name: str) -> Path:
    found = sorted(path for path in folder.glob("*.txt") if path.stem == name or path.stem.endswith(f"_{name}"))
    if len(found) != 1:
        listed = ", ".join(path.name for path in found) or "none"
        raise DataError(
            f"{folder}: expected one file of class {name}, such as comp4_det_test_{name}.txt; found {listed}"
        )
    return found[0]


def _arrays(rows: list[tuple[list[float], float, int]]) -> VocDetections:
    boxes, scores, labels = zip(*rows, strict=True)
    return np.array(boxes, np.float64), np.array(scores, np.float64), np.array(labels, np.int64)
