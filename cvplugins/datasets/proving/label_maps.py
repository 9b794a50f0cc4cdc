"""The label map of one image at two places between file and evaluator, and what became of its labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .objects import Difference

__all__ = ["label_map_differences", "stray_labels", "unseen_labels"]


def label_map_differences(
    before: NDArray[Any],
    after: NDArray[Any],
    ignore_index: int = 255,
    names: Sequence[str] = (),
    after_names: Sequence[str] = (),
) -> list[Difference]:
    """Return what changed between two places.

    Args:
        before: Labels at the first place, shape ``(H, W)``.
        after: Labels at the second place.
        ignore_index: The label that does not count.
        names: The classes' names at the first place.
        after_names: The same at the second place; those of the first one if empty.

    Example:
        >>> [each.text for each in label_map_differences(np.array([[1, 2]]), np.array([[0, 1]]))]
        ['every label is 1 less (reduce_zero_label once too often, or once too seldom)']
    """
    if before.shape != after.shape:
        sizes = ("{1} x {0}".format(*each.shape) for each in (before, after))
        return [Difference("size", "label maps of {} become {}".format(*sizes), int(before.size))]
    differs = before != after
    if not differs.any():
        return []
    old, new = before.astype(np.int64), after.astype(np.int64)
    total = int(differs.sum())
    for step in (-1, 1):
        moved = differs & (old != ignore_index) & (new != ignore_index)
        if moved.any() and (new[moved] - old[moved] == step).all() and _explains(old, new, step, ignore_index):
            amount = "less" if step < 0 else "more"
            text = f"every label is 1 {amount} (reduce_zero_label once too often, or once too seldom)"
            return [Difference("zero label", text, total)]
    for text, turned in (
        ("label maps are mirrored left to right", old[:, ::-1]),
        ("label maps are mirrored top to bottom", old[::-1]),
    ):
        if np.array_equal(turned, new):
            return [Difference("moved", text, total)]
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            if (down or right) and _is_shifted(old, new, down, right):
                return [Difference("moved", f"label maps are shifted by ({right}, {down}) pixels", total)]
    return _by_label(old, new, ignore_index, names, after_names or names)


def _explains(old: NDArray[np.int64], new: NDArray[np.int64], step: int, ignore_index: int) -> bool:
    """Return whether all labelled pixels moved by a step, but for the one that falls out at the end."""
    kept = (old != ignore_index) & (new != ignore_index)
    return bool((new[kept] - old[kept] == step).all())


def _is_shifted(old: NDArray[np.int64], new: NDArray[np.int64], down: int, right: int) -> bool:
    height, width = old.shape
    source = old[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
    target = new[max(0, down) : height - max(0, -down), max(0, right) : width - max(0, -right)]
    return bool(np.array_equal(source, target))


def _by_label(
    old: NDArray[np.int64],
    new: NDArray[np.int64],
    ignore_index: int,
    names: Sequence[str],
    after_names: Sequence[str],
) -> list[Difference]:
    differs = old != new
    unknown = np.setdiff1d(np.unique(new), [*np.unique(old), ignore_index])
    pairs, counts = np.unique(np.stack([old[differs], new[differs]]), axis=1, return_counts=True)
    if len(unknown) and len(pairs[0]) > len(np.unique(old)):
        text = "labels appear that were not in the label map, as where it is resized by interpolation"
        return [Difference("interpolated", text, int(differs.sum()))]
    one_each = len(np.unique(pairs[0])) == len(pairs[0])
    if len(pairs[0]) > 6 and not one_each:
        return [Difference("content", "another label map, or one that has moved", int(differs.sum()))]
    return [
        Difference(
            "class", f"{_label(a, names, ignore_index)} becomes {_label(b, after_names, ignore_index)}", int(count)
        )
        for (a, b), count in zip(pairs.T.tolist(), counts, strict=True)
    ]


def _label(number: int, names: Sequence[str], ignore_index: int) -> str:
    if number == ignore_index:
        return f"label {number} (ignored)"
    return f"label {number} ({names[number]})" if 0 <= number < len(names) else f"label {number} (no class)"


def unseen_labels(
    labels: NDArray[Any], classes: int, ignore_index: int | None, names: Sequence[str] = ()
) -> list[Difference]:
    """Return what a loss or metric with such an ``ignore_index`` makes wrongly of a label map.

    Args:
        labels: As they are handed over.
        classes: How many there are.
        ignore_index: The label that does not count; None if all do.
        names: The classes' names.

    Example:
        >>> [each.text for each in unseen_labels(np.array([[0, 1]]), 2, 0)]
        ['label 0 is a class, and never counts']
    """
    found = []
    numbers, counts = np.unique(labels, return_counts=True)
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        if number == ignore_index and 0 <= number < classes:
            name = f" ({names[number]})" if number < len(names) else ""
            found.append(Difference("ignore_index", f"label {number}{name} is a class, and never counts", count))
        elif number != ignore_index and not 0 <= number < classes:
            text = f"label {number} is none of the {classes} classes, and is not ignored"
            found.append(Difference("ignore_index", text, count))
    return found


def stray_labels(before: NDArray[Any], after: NDArray[Any], padding: Sequence[int]) -> list[Difference]:
    """Return whether labels appeared where a label map was resized, cut or padded; they are made by interpolation.

    Args:
        before: Labels at the first place.
        after: Labels at the second place, of any size.
        padding: Labels that padding may add.
    """
    if before.shape == after.shape:
        return []  # compared pixel by pixel elsewhere
    stray = np.setdiff1d(np.unique(after), [*np.unique(before), *padding])
    if not len(stray):
        return []
    text = "labels appear that were not in the label map: it is resized by interpolation, not by nearest neighbours"
    return [Difference("interpolated", text, int(np.isin(after, stray).sum()))]
