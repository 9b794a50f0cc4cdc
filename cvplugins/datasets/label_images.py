"""Label maps: images whose pixels are class indices; reading one, and a check of a data set's before any work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .voc import DataError, check_jpeg

__all__ = ["LabelReport", "check_label_images", "read_label_image", "without_zero_label"]

READ = 200  # label maps whose pixels are looked at
LISTED = 10
# Of images of other kinds, such as many channels in TIFF, Pillow may not even know the size.
READABLE = {".jpg", ".jpeg", ".png", ".bmp"}


@dataclass(frozen=True)
class LabelReport:
    """What :func:`check_label_images` found.

    Attributes:
        images: How many pairs of image and label map there are.
        counts: Pixels of each value 0 to 255 in the label maps that were read, int64 ``(256,)``.
    """

    images: int
    counts: NDArray[np.int64]

    def share(self, value: int) -> float:
        """Return the share of the pixels with a value, in [0, 1]."""
        return float(self.counts[value]) / max(int(self.counts.sum()), 1)


def read_label_image(path: str | os.PathLike[str]) -> NDArray[np.int32]:
    """Read an image of class indices; of one with a palette these are its indices.

    Args:
        path: A PNG, or another format of Pillow's.

    Returns:
        Integers ``(H, W)``.

    Raises:
        DataError: The file cannot be read, or holds colours.
        ImportError: Pillow is missing.
    """
    try:
        with _pillow().open(path) as image:
            values = np.asarray(image)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if values.ndim != 2:
        raise DataError(f"{path}: holds colours ({values.shape[-1]} channels), not class indices")
    return values.astype(np.int32)


def without_zero_label(labels: NDArray[Any], ignore_index: int = 255) -> NDArray[Any]:
    """Return labels of which 0 meant "no class" and 1 the first class, with the classes from 0 and the rest ignored.

    Args:
        labels: Integers, or floats that hold some, of any shape.
        ignore_index: What 0 becomes, and what stays as it is.

    Example:
        >>> without_zero_label(np.array([0, 1, 150, 255]))
        array([255,   0, 149, 255])
    """
    return np.where((labels == 0) | (labels == ignore_index), ignore_index, labels - 1).astype(labels.dtype)


def check_label_images(
    pairs: Sequence[tuple[Path, Path]], num_classes: int, *, reduce_zero_label: bool = False, ignore_index: int = 255
) -> LabelReport:
    """Check that every image has a label map of its size, and that the labels fit the classes.

    The headers of all files are read (JPEG, PNG and BMP; other images only have to exist), and the pixels of 200 label
    maps, evenly spread.

    Args:
        pairs: Paths of each image and its label map.
        num_classes: Number of classes.
        reduce_zero_label: Whether 0 means "no class" and the classes count from 1, as in ADE20K's files.
        ignore_index: Label that does not count, beside them.

    Raises:
        DataError: A label map is missing, unreadable or of another size than its image, or holds a label out of range;
            the message names file, value and setting, and how many more there are.

    Example:
        >>> check_label_images([(Path("no.jpg"), Path("no.png"))], 2)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        cvplugins.errors.DataError: 1 of 1 images cannot be used: no.jpg: ...
    """
    # Threads hide the latency of slow disks.
    with ThreadPoolExecutor(max_workers=8) as pool:
        _raise_first(
            list(pool.map(_pair_problem, pairs)), "cannot be used", ". Mend them, or take them out of both folders"
        )
        chosen = [pairs[i][1] for i in np.unique(np.linspace(0, len(pairs) - 1, READ).astype(int))] if pairs else []
        counts = list(pool.map(_count_labels, chosen))
    allowed = np.zeros(256, bool)
    allowed[: num_classes + reduce_zero_label] = True
    allowed[ignore_index] = True
    problems = [_range_problem(path, count, allowed) for path, count in zip(chosen, counts, strict=True)]
    _raise_first(problems, "hold a label out of range", _range_hint(num_classes, reduce_zero_label))
    return LabelReport(len(pairs), np.sum(counts, axis=0, dtype=np.int64) if counts else np.zeros(256, np.int64))


def _raise_first(problems: Sequence[str | None], what: str, hint: str = "") -> None:
    found = [problem for problem in problems if problem is not None]
    if found:
        others = ", ".join(Path(problem.partition(": ")[0]).name for problem in found[1 : LISTED + 1])
        more = f"; further: {others}" + (" ..." if len(found) > LISTED + 1 else "") if others else ""
        raise DataError(f"{len(found)} of {len(problems)} images {what}: {found[0]}{more}{hint}")


def _pair_problem(pair: tuple[Path, Path]) -> str | None:
    sizes = []
    for path in pair:
        try:
            if path.suffix.lower() not in READABLE:
                path.stat()
                continue
            with _pillow().open(path) as image:
                sizes.append(image.size)
            if path.suffix.lower() in {".jpg", ".jpeg"}:
                check_jpeg(path)
        except DataError as error:
            return str(error)
        except FileNotFoundError:
            return f"{path}: does not exist"
        except OSError as error:
            return f"{path}: cannot be read: {error}"
    if len(sizes) == 2 and sizes[0] != sizes[1]:
        (width, height), (labelled_width, labelled_height) = sizes
        return f"{pair[1]}: is {labelled_width} x {labelled_height} pixels, but its image is {width} x {height}"
    return None


def _count_labels(path: Path) -> NDArray[np.int64]:
    labels = read_label_image(path)
    if labels.size and not 0 <= labels.min() <= labels.max() <= 255:
        raise DataError(f"{path}: holds label {labels.max()}; label maps of more than 8 bits are not read")
    return np.bincount(labels.ravel(), minlength=256)


def _range_problem(path: Path, count: NDArray[np.int64], allowed: NDArray[np.bool_]) -> str | None:
    wrong = np.flatnonzero((count > 0) & ~allowed)
    return f"{path}: label {wrong[-1]} ({count[wrong[-1]]} pixels)" if len(wrong) else None


def _range_hint(num_classes: int, reduce_zero_label: bool) -> str:
    if reduce_zero_label:
        return (
            f". With reduce_zero_label=True, {num_classes} classes are the labels 1 to {num_classes}, and 0 is none: "
            "correct the number of classes, or the labels"
        )
    return (
        f". With reduce_zero_label=False, {num_classes} classes are the labels 0 to {num_classes - 1}: if 0 means "
        "unlabelled, set reduce_zero_label=True; else correct the number of classes, or the labels"
    )


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("label images need Pillow: pip install pillow") from error
    return Image
