"""Label maps: images whose pixels are class indices; reading one, and a check of a data set's before any work."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvplugins.errors import DataError, first_line

from .file_facts import read_facts
from .image_readers import ImageReader, check_images
from .regular_files import stat_regular

__all__ = [
    "LabelReport",
    "SceneReader",
    "check_classes_occur",
    "check_label_images",
    "count_labels",
    "pair_problems",
    "read_label_image",
    "without_zero_label",
]

READ = 200  # label maps whose pixels are looked at; more where classes are missing in these
LISTED = 10
COUNTS_VERSION = 1  # part of the key of kept counts: raise it with every change of what is counted
VALUES = 1 << 16
MUCH_IGNORED = 0.5  # share of the pixels
# Of images of other kinds, such as many channels in TIFF, Pillow may not even know the size.
READABLE = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


@dataclass(frozen=True)
class LabelReport:
    """What :func:`check_label_images` found.

    Attributes:
        images: How many pairs of image and label map there are.
        counts: Pixels of each value in the label maps that were read, int64 ``(65536,)``.
        read: How many these were.
        warnings: What is unusual about the files, a line a kind.
    """

    images: int
    counts: NDArray[np.int64]
    read: int = 0
    warnings: tuple[str, ...] = ()

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
    stat_regular(path, "label map")
    try:
        with _pillow().open(path) as image:
            values = np.asarray(image)
    except Exception as error:  # damaged bytes make decoders raise anything
        raise DataError(f"{path}: cannot be read: {first_line(error)}") from error
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


@dataclass(frozen=True)
class SceneReader:
    """How a loader reads images and their label maps.

    Attributes:
        image: How it reads the images.
        label: The same of the label maps, which most loaders do not turn.
        read_labels: Returns the values of a label map as the loader sees them, ``(H, W)``, or raises ``DataError``.
        values: Names these values in the cache: what else than the file they depend on.
        largest: Largest value that the loader keeps.
    """

    image: ImageReader = field(default_factory=ImageReader)
    label: ImageReader = field(default_factory=lambda: ImageReader(turns="none"))
    read_labels: Callable[[Path], NDArray[Any]] | None = None
    values: str = "stored"
    largest: int = 255


def check_label_images(
    pairs: Sequence[tuple[Path, Path]],
    num_classes: int,
    *,
    reduce_zero_label: bool = False,
    ignore_index: int = 255,
    reader: SceneReader | None = None,
) -> LabelReport:
    """Check that every image has a label map of its size, and that the labels fit the classes.

    The headers of all files are read (JPEG, PNG, BMP and WebP; other images only have to exist), and the pixels of 200
    label maps, evenly spread; if a class occurs in none of these, those of more, until all classes were seen.

    Args:
        pairs: Paths of each image and its label map.
        num_classes: Number of classes.
        reduce_zero_label: Whether 0 means "no class" and the classes count from 1, as in ADE20K's files.
        ignore_index: Label that does not count, beside them.
        reader: What will read them; one that applies EXIF's orientation to images alone if None.

    Raises:
        DataError: A label map is missing, unreadable or of another size than its image, or holds a label out of range;
            the message names file, value and setting, and how many more there are.

    Example:
        >>> check_label_images([(Path("no.jpg"), Path("no.png"))], 2)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        cvplugins.errors.DataError: 1 of 1 images cannot be used: no.jpg: ...
    """
    reader = reader or SceneReader()
    problems, warnings = pair_problems(pairs, reader)
    raise_first(problems, "cannot be used", ". Mend them, or take them out of both folders")
    allowed = np.zeros(VALUES, bool)
    allowed[: num_classes + reduce_zero_label] = True
    wanted = np.flatnonzero(allowed)[int(reduce_zero_label) :]
    if 0 <= ignore_index < VALUES:
        allowed[ignore_index] = True
    paths = [label for _, label in pairs]
    totals, read = np.zeros(VALUES, np.int64), 0
    for places in _batches(len(paths)):
        chosen = [paths[place] for place in places]
        counts = _count_all(chosen, reader)
        raise_first(
            [_range_problem(path, each, allowed) for path, each in zip(chosen, counts, strict=True)],
            "hold a label out of range",
            _range_hint(num_classes, reduce_zero_label),
        )
        for each in counts:
            totals[list(each)] += list(each.values())
        read += len(chosen)
        if totals[wanted].all():
            break
    return LabelReport(len(pairs), totals, read, warnings)


def check_classes_occur(report: LabelReport, classes: Mapping[int, str]) -> tuple[str, ...]:
    """Return warnings about classes that no label map holds, and about much that is ignored.

    Args:
        report: What :func:`check_label_images` found.
        classes: Name of each class by its value in the files; all other values are ignored.

    Raises:
        DataError: No pixel is of a class, or of two classes only one occurs and all else is ignored, such as maps of 0
            and 255: nothing can be learnt from these.

    Example:
        >>> counts = np.zeros(65536, np.int64)
        >>> counts[[0, 255]] = 90, 10
        >>> check_classes_occur(LabelReport(1, counts, 1), {0: "road", 1: "crack"})
        Traceback (most recent call last):
        cvplugins.errors.DataError: the label maps hold only label 0 ('road') of the classes, and 255, which is \
ignored: label 1 ('crack') occurs nowhere. If 255 means 'crack', store it as 1; else correct the classes
    """
    total = int(report.counts.sum())
    if not total:
        return ()
    present = [label for label in classes if report.counts[label]]
    missing = [label for label in classes if not report.counts[label]]
    others = [str(label) for label in np.flatnonzero(report.counts) if label not in classes]
    ignored = 1 - sum(int(report.counts[label]) for label in present) / total
    named = [f"label {label} ({classes[label]!r})" for label in missing[:LISTED]]
    listed = ", ".join(named) + (f" and {len(missing) - LISTED} more" if len(missing) > LISTED else "")
    if not present or (len(classes) == 2 and missing and others):
        only = f"only label {present[0]} ({classes[present[0]]!r}) of the classes, and" if present else "no class, but"
        means = f"If {others[-1]} means {classes[missing[0]]!r}, store it as {missing[0]}; else correct the classes"
        beside = ", ".join(others[:LISTED])
        raise DataError(f"the label maps hold {only} {beside}, which is ignored: {listed} occurs nowhere. {means}")
    warnings = []
    if missing:
        warnings.append(f"{len(missing)} of {len(classes)} classes occur in none of the label maps: {listed}")
    if ignored > MUCH_IGNORED:
        warnings.append(f"{100 * ignored:.0f} % of the pixels are ignored (labels {', '.join(others[:LISTED])})")
    return tuple(warnings)


def _batches(number: int) -> list[NDArray[np.int64]]:
    """Return places that are evenly spread, READ at first and then ever more, until each was named once."""
    first = np.unique(np.linspace(0, number - 1, READ).astype(np.int64)) if number else np.zeros(0, np.int64)
    rest = np.setdiff1d(np.arange(number), first)
    rest = rest[np.argsort(rest * 0.6180339887 % 1, kind="stable")]  # the golden ratio spreads any beginning evenly
    sizes = np.cumsum([READ * 2**power for power in range(40)])
    return [each for each in (first, *np.split(rest, sizes[sizes < len(rest)])) if len(each)]


def raise_first(problems: Sequence[str | None], what: str, hint: str = "") -> None:
    """Raise ``DataError`` with the first problem, the names of the files with the next ones, and how many there are."""
    found = [problem for problem in problems if problem is not None]
    if found:
        others = ", ".join(Path(problem.partition(": ")[0]).name for problem in found[1 : LISTED + 1])
        more = f"; further: {others}" + (" ..." if len(found) > LISTED + 1 else "") if others else ""
        raise DataError(f"{len(found)} of {len(problems)} images {what}: {found[0]}{more}{hint}", found)


def pair_problems(pairs: Sequence[tuple[Path, Path]], reader: SceneReader) -> tuple[list[str | None], tuple[str, ...]]:
    """Return what is wrong with the files of each image and its label map, or None, and what is unusual about them."""
    exists = [_existence_problem(pair) for pair in pairs]
    checks = []
    for side, reads in enumerate((reader.image, reader.label)):
        known = [pair[side] for pair in pairs if pair[side].suffix.lower() in READABLE]
        check = check_images(known, reads)
        sizes = [None if isinstance(each, DataError) else reads.size(each) for each in check.headers]
        checks.append((dict(zip(known, zip(check.problems, sizes, strict=True), strict=True)), check.warnings))
    (images, image_warnings), (labels, label_warnings) = checks
    problems = [
        problem or _pair_problem(pair, images.get(pair[0], (None, None)), labels.get(pair[1], (None, None)), reader)
        for pair, problem in zip(pairs, exists, strict=True)
    ]
    return problems, image_warnings + label_warnings


def _existence_problem(pair: tuple[Path, Path]) -> str | None:
    for path, what in zip(pair, ("image", "label map"), strict=True):
        if not path.exists():
            return f"{path}: does not exist"
        try:
            stat_regular(path, what)
        except DataError as error:
            return str(error)
    return None


def _pair_problem(
    pair: tuple[Path, Path],
    image: tuple[str | None, tuple[int, int] | None],
    label: tuple[str | None, tuple[int, int] | None],
    reader: SceneReader,
) -> str | None:
    problem = image[0] or label[0]
    if problem or image[1] is None or label[1] is None or image[1] == label[1]:
        return problem
    (width, height), (labelled_width, labelled_height) = image[1], label[1]
    turned = ""
    if label[1] == image[1][::-1]:
        ignore = f", or {reader.image.ignore_hint}" if reader.image.ignore_hint else ""
        turned = (
            f" as {reader.image.name} reads it. If an orientation tag turns the image (exiftool -Orientation FILE) and "
            f"the label map is of the stored pixels, remove the tag (exiftool -Orientation= FILE){ignore}; else turn "
            "the label map"
        )
    return f"{pair[1]}: is {labelled_width} x {labelled_height} pixels, but its image is {width} x {height}{turned}"


def _count_all(paths: Sequence[Path], reader: SceneReader) -> list[dict[int, int]]:
    """Return the pixels of each value in each label map."""
    found = count_labels(paths, reader)
    for each in found:
        if isinstance(each, DataError):
            raise each
    return [each for each in found if not isinstance(each, DataError)]


def count_labels(paths: Sequence[Path], reader: SceneReader) -> list[dict[int, int] | DataError]:
    """Return the pixels of each value in each label map, or why it cannot be read; kept between runs."""
    key = f"label counts {COUNTS_VERSION}, {reader.values} values up to {reader.largest}"
    return read_facts(
        paths,
        lambda path: _count_labels(path, reader),
        key=key,
        pack=lambda counts: [number for pair in counts.items() for number in pair],
        unpack=_unpack_counts,
    )


def _unpack_counts(values: list[Any]) -> dict[int, int]:
    if not values or len(values) % 2 or any(type(value) is not int or value < 0 for value in values):
        raise ValueError("not counts")
    if max(values[::2]) >= VALUES:
        raise ValueError("not counts of labels")
    return dict(zip(values[::2], values[1::2], strict=True))


def _count_labels(path: Path, reader: SceneReader) -> dict[int, int]:
    labels = (reader.read_labels or read_label_image)(path)
    if labels.ndim != 2:
        raise DataError(f"{path}: holds colours ({labels.shape[-1]} channels), not class indices")
    if labels.size and not 0 <= labels.min() <= labels.max() <= reader.largest:
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise DataError(f"{path}: holds label {wrong}; the loader keeps labels from 0 to {reader.largest}")
    counts = np.bincount(labels.ravel())
    return {int(label): int(counts[label]) for label in np.flatnonzero(counts)}


def _range_problem(path: Path, counts: Mapping[int, int], allowed: NDArray[np.bool_]) -> str | None:
    wrong = [label for label in counts if not allowed[label]]
    return f"{path}: label {max(wrong)} ({counts[max(wrong)]} pixels)" if wrong else None


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
