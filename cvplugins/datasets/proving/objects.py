"""The objects of one image at two places between file and evaluator, and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

__all__ = ["TOLERANCE", "Difference", "Objects", "object_differences"]

TOLERANCE = 0.1  # pixels; rounding to float32 on the way there and back stays far below
LEAST_MASK_IOU = 0.999

Boxes = NDArray[np.float64]


@dataclass(frozen=True)
class Objects:
    """Objects of an image, in the pixels of the file.

    Attributes:
        boxes: ``xyxy``, shape ``(N, 4)``; the right and lower sides are not part of a box.
        labels: Numbers of their classes, shape ``(N,)``.
        ignored: Which of them training and evaluation pass over, such as crowds, shape ``(N,)``.
        masks: Their pixels, each of the image's shape; None where no masks are used.
    """

    boxes: Boxes
    labels: NDArray[np.int64]
    ignored: NDArray[np.bool_]
    masks: Sequence[NDArray[np.bool_]] | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Difference:
    """What became of some objects or pixels.

    Attributes:
        kind: A word, such as ``"moved"``.
        text: What happened, the same for all images to which the same happened.
        count: Objects or pixels.
        expected: Whether a perfect prediction loses nothing by it.
    """

    kind: str
    text: str
    count: int
    expected: bool = False


def object_differences(
    before: Objects, after: Objects, size: tuple[int, int], names: Sequence[str] = (), after_names: Sequence[str] = ()
) -> list[Difference]:
    """Return what changed between two places, each change named by its cause where it is a known one.

    Args:
        before: The objects at the first place.
        after: The objects at the second place.
        size: Width and height of the image.
        names: The classes' names at the first place.
        after_names: The same at the second place; those of the first one if empty.

    Example:
        >>> box = np.array([[10.0, 10, 30, 40]])
        >>> one = Objects(box, np.array([0]), np.array([False]))
        >>> two = Objects(box + 1, np.array([0]), np.array([False]))
        >>> [each.text for each in object_differences(one, two, (100, 80))]
        ['boxes are shifted by (1, 1) pixels']
    """
    pairs = _equal_pairs(before.boxes, after.boxes, before.labels, after.labels)
    found = _of_pairs(before, after, pairs, names, after_names or names)
    left = np.setdiff1d(np.arange(len(before)), [first for first, _ in pairs])
    new = np.setdiff1d(np.arange(len(after)), [second for _, second in pairs])
    width, height = size
    clipped = np.clip(before.boxes[left], 0, [width, height, width, height])
    cut = [
        (left[i], new[j]) for i, j in _equal_pairs(clipped, after.boxes[new], before.labels[left], after.labels[new])
    ]
    if cut:
        found.append(Difference("clipped", "boxes are clipped to the image", len(cut), expected=True))
        found += _of_pairs(before, after, cut, names, after_names or names)
    left = np.setdiff1d(left, [first for first, _ in cut])
    new = np.setdiff1d(new, [second for _, second in cut])
    if len(left) and len(new):
        text, count = _movement(before.boxes[left], after.boxes[new], size)
        if count:
            found.append(Difference("moved", text, count))
            return found + _rest(before, after, left, new, size, count)
    return found + _rest(before, after, left, new, size, 0)


def _rest(
    before: Objects, after: Objects, left: NDArray[np.int64], new: NDArray[np.int64], size: tuple[int, int], moved: int
) -> list[Difference]:
    """Return what was lost and what is new, beyond the objects that moved."""
    found = []
    width, height = size
    sides = np.clip(before.boxes[left], 0, [width, height, width, height])
    is_empty = ((sides[:, 2:] - sides[:, :2]) < 1).any(axis=1)
    is_ignored = before.ignored[left]
    lost = int((~is_empty & ~is_ignored).sum()) - moved
    if lost > 0:
        found.append(Difference("lost", "objects are left out", lost))
    if not moved:
        for flags, text in (
            (is_ignored, "ignored objects (crowds, difficult ones) are left out"),
            (is_empty & ~is_ignored, "boxes without a whole pixel in the image are left out"),
        ):
            if flags.any():
                found.append(Difference("removed", text, int(flags.sum()), expected=True))
    added = int((~after.ignored[new]).sum()) - moved
    if added > 0:
        found.append(Difference("added", "objects appear that were not there", added))
    return found


def _equal_pairs(
    first: Boxes, second: Boxes, first_labels: NDArray[np.int64], second_labels: NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Return pairs of equal boxes, each box once; among equal boxes those of the same class go first."""
    if not len(first) or not len(second):
        return []
    apart = np.abs(first[:, None] - second[None]).max(axis=2)
    other = first_labels[:, None] != second_labels[None]
    rows, columns = np.nonzero(apart < TOLERANCE)
    order = np.lexsort((columns, rows, apart[rows, columns].round(3), other[rows, columns]))
    taken: dict[int, int] = {}
    for index in order:
        row, column = int(rows[index]), int(columns[index])
        if row not in taken and column not in taken.values():
            taken[row] = column
    return list(taken.items())


def _of_pairs(
    before: Objects, after: Objects, pairs: Sequence[tuple[int, int]], names: Sequence[str], after_names: Sequence[str]
) -> list[Difference]:
    found: dict[tuple[str, str], int] = {}
    for first, second in pairs:
        for change in _changes(before, after, first, second, names, after_names):
            found[change] = found.get(change, 0) + 1
    return [Difference(kind, text, count, kind == "passed over") for (kind, text), count in found.items()]


def _changes(
    before: Objects, after: Objects, first: int, second: int, names: Sequence[str], after_names: Sequence[str]
) -> list[tuple[str, str]]:
    changes = []
    if before.ignored[first] != after.ignored[second]:
        text = "objects become ignored ones" if after.ignored[second] else "ignored objects become ordinary ones"
        changes.append(("ignored", text))
    old, new = int(before.labels[first]), int(after.labels[second])
    if old != new:
        changes.append(("class", f"{_label(old, names)} becomes {_label(new, after_names)}"))
    if before.masks is not None and after.masks is not None:
        iou = _mask_iou(before.masks[first], after.masks[second])
        if iou < LEAST_MASK_IOU:
            changes.append(("mask", "masks change"))
    return changes


def _label(number: int, names: Sequence[str]) -> str:
    return f"label {number} ({names[number]})" if 0 <= number < len(names) else f"label {number}"


def _mask_iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    if first.shape != second.shape:
        return 0.0
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0


def _movement(before: Boxes, after: Boxes, size: tuple[int, int]) -> tuple[str, int]:
    """Return how boxes moved, in words, and how many of them; the known way that explains most of them."""
    best = ("", 0)
    for text, way in (*_ways(size), *_fitted_ways(before, after)):
        made = way(before)
        near = np.abs(made[:, None] - after[None]).max(axis=2) < 2 * TOLERANCE
        count = int(min(near.any(axis=1).sum(), near.any(axis=0).sum()))
        if count > best[1]:
            best = (text, count)
    if best[1]:
        return best
    # Nothing known explains it; boxes that still overlap are the same ones, somewhere else.
    count = int(min(len(before), (_ious(before, after).max(axis=1) > 0.1).sum()))
    return "boxes move", min(count, len(after))


def _ways(size: tuple[int, int]) -> list[tuple[str, Callable[[Boxes], Boxes]]]:
    width, height = size

    def mirrored(boxes: Boxes) -> Boxes:
        return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)

    def upside_down(boxes: Boxes) -> Boxes:
        return np.stack([boxes[:, 0], height - boxes[:, 3], boxes[:, 2], height - boxes[:, 1]], axis=1)

    return [
        ("boxes are mirrored left to right", mirrored),
        ("boxes are mirrored top to bottom", upside_down),
        ("boxes are turned by 180 degrees", lambda boxes: mirrored(upside_down(boxes))),
        (
            "boxes of left, top, width and height are read as corners (xywh as xyxy)",
            lambda boxes: np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1),
        ),
        (
            "boxes of corners are read as left, top, width and height (xyxy as xywh)",
            lambda boxes: np.concatenate([boxes[:, :2], boxes[:, 2:] + boxes[:, :2]], axis=1),
        ),
        ("x and y of boxes are exchanged", lambda boxes: boxes[:, [1, 0, 3, 2]]),
    ]


def _fitted_ways(before: Boxes, after: Boxes) -> list[tuple[str, Callable[[Boxes], Boxes]]]:
    """Return shifts and scales, taken from boxes of the same place in their order, or from those that overlap most."""
    partners = [_ious(before, after).argmax(axis=1)]
    if len(before) == len(after):
        partners.insert(0, np.arange(len(before)))
    ways: list[tuple[str, Callable[[Boxes], Boxes]]] = []
    for partner in partners:
        shift = np.median(after[partner] - before, axis=0)
        ways.append((_shift_text(shift), partial(np.add, shift)))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = after[partner] / before
        x, y = (float(np.nanmedian(np.where(np.isfinite(ratio), ratio, np.nan)[:, side])) for side in (2, 3))
        if np.isfinite(x) and np.isfinite(y):
            text = f"boxes are scaled by {x:.4g} in x and {y:.4g} in y"
            ways.append((text, partial(np.multiply, np.array([x, y, x, y]))))
    return ways


def _shift_text(shift: NDArray[np.float64]) -> str:
    left, top, right, bottom = (float(np.round(each, 2)) + 0.0 for each in shift)
    if left == right and top == bottom:
        return f"boxes are shifted by ({left:g}, {top:g}) pixels"
    return f"the sides of boxes are shifted by ({left:g}, {top:g}, {right:g}, {bottom:g}) pixels"


def _ious(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(each[:, 2:] - each[:, :2], 0, None).prod(axis=1) for each in (first, second)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1), 0.0)
