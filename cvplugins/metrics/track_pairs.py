"""All frames of all sequences as columns, and the pairs of true and tracked boxes that overlap.

A *unit* is one class of one sequence, for which everything is counted; a *group* is one class in one frame: only inside
a group can boxes match. Boxes are ordered by unit and frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .assignment import assign
from .tracked_frame import TrackedFrame

__all__ = ["EPSILON", "Boxes", "TrackPairs", "number", "track_pairs"]

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

EPSILON = float(np.finfo(float).eps)  # TrackEval lets an IoU pass that misses a threshold by rounding
IGNORED_IOU = 0.5  # MOTChallenge's, whatever the metrics match at
CELLS_AT_ONCE = 256_000  # a table of overlaps, one byte a cell, should fit into the processor's cache


class Boxes(NamedTuple):
    """True or tracked boxes, ordered by unit and frame; N rows."""

    unit: Integers
    group: Integers
    track: Integers
    frame: Integers
    id: Integers


class TrackPairs(NamedTuple):
    """Boxes, and the pairs of a true and a tracked one in the same group whose IoU is above 0, ordered by both.

    ``truth`` and ``found`` are rows of ``truths`` and ``tracked``; ``track`` counts from 0 over all units.
    """

    truths: Boxes
    tracked: Boxes
    truth: Integers
    found: Integers
    iou: Floats
    num_units: int

    def near(self, threshold: float) -> TrackPairs:
        """Return only the pairs whose IoU is at least ``threshold``."""
        kept = self.iou >= threshold
        return self._replace(truth=self.truth[kept], found=self.found[kept], iou=self.iou[kept])


class _Columns(NamedTuple):
    """Boxes of one side as they came, ordered by group."""

    key: Integers
    id: Integers
    box: Floats
    ignored: Flags
    excluded: Flags

    def rows(self, kept: Any) -> _Columns:
        return _Columns(*(column[kept] for column in self))


def track_pairs(frames: Sequence[TrackedFrame], sequence: Integers, num_classes: int) -> TrackPairs:
    """Join all frames and find what overlaps, without what ignored ground truth absorbs.

    Args:
        frames: Ordered by sequence and frame.
        sequence: Place of each frame's sequence, rising, ``(F,)``.
        num_classes: C; unit ``s * C + c`` is class ``c`` of sequence ``s``.
    """
    truths = _columns(frames, sequence, num_classes, "truth_")
    tracked = _columns(frames, sequence, num_classes, "")
    group, num_groups = number(np.concatenate([truths.key, tracked.key]))
    groups = group[: len(truths.key)], group[len(truths.key) :]
    truth, found, iou = _overlaps(truths.box, tracked.box, *groups, num_groups)
    if (truths.ignored | truths.excluded).any():
        kept, kept_found = _preprocess(truths, tracked, groups[0], truth, found, iou)
        stay = kept[truth] & kept_found[found]
        truth, found = (np.cumsum(kept) - 1)[truth[stay]], (np.cumsum(kept_found) - 1)[found[stay]]
        truths, tracked, iou = truths.rows(kept), tracked.rows(kept_found), iou[stay]
        groups = groups[0][kept], groups[1][kept_found]
    frame = np.array([each.frame for each in frames], np.int64)
    return TrackPairs(
        truths=_boxes(truths, groups[0], frame),
        tracked=_boxes(tracked, groups[1], frame),
        truth=truth,
        found=found,
        iou=iou,
        num_units=num_classes * (int(sequence[-1]) + 1 if len(sequence) else 0),
    )


def number(values: Integers) -> tuple[Integers, int]:
    """Return the place of each value among the distinct ones in rising order, and how many these are.

    >>> number(np.array([7, 5, 7]))
    (array([1, 0, 1]), 2)
    """
    if len(values) == 0:
        return values, 0
    low, span = int(values.min()), int(values.max()) - int(values.min()) + 1
    if span > 16 * len(values) + 1024:
        distinct, place = np.unique(values, return_inverse=True)
        return place.reshape(-1), len(distinct)
    # A table is many times faster than sorting, as long as it is not much larger than the values.
    present = np.zeros(span, np.int64)
    present[values - low] = 1
    place = np.cumsum(present) - 1
    return place[values - low], int(place[-1]) + 1


def _columns(frames: Sequence[TrackedFrame], sequence: Integers, num_classes: int, side: str) -> _Columns:
    ids = [getattr(frame, f"{side}ids") for frame in frames]
    count = np.array([len(each) for each in ids], np.int64)
    box = np.concatenate([getattr(frame, f"{side}boxes") for frame in frames] or [np.zeros((0, 4))])

    def joined(name: str) -> Integers:
        values = [getattr(frame, name) for frame in frames]
        if (not side and name in ("ignored", "excluded")) or all(value is None for value in values):
            return np.zeros(len(box), np.int64)
        filled = [np.zeros(n, np.int64) if v is None else v for v, n in zip(values, count, strict=True)]
        return np.concatenate(filled).astype(np.int64)

    place = np.repeat(np.arange(len(frames)), count)
    key = (sequence[place] * num_classes + joined(f"{side}labels")) * max(len(frames), 1) + place
    columns = _Columns(
        key,
        np.concatenate([*ids, np.zeros(0, np.int64)]),
        box.astype(np.float64, copy=False),
        joined("ignored").astype(bool),
        joined("excluded").astype(bool),
    )
    return columns if num_classes == 1 else columns.rows(np.argsort(key, kind="stable"))


def _boxes(columns: _Columns, group: Integers, frame: Integers) -> Boxes:
    unit, place = np.divmod(columns.key, max(len(frame), 1))
    own, num_ids = number(columns.id)
    track, _ = number(unit * num_ids + own)
    return Boxes(unit, group, track, frame[place], columns.id)


def _overlaps(
    truth_boxes: Floats, boxes: Floats, truth_group: Integers, group: Integers, num_groups: int
) -> tuple[Integers, Integers, Floats]:
    """Return the rows and the IoU of all pairs of one group that overlap, ordered by row."""
    sides = [_Side(*each, num_groups) for each in ((truth_boxes, truth_group), (boxes, group))]
    both = np.flatnonzero((sides[0].count > 0) & (sides[1].count > 0))
    # Groups whose numbers of boxes have as many binary digits fill one table to a quarter at least.
    digits = [np.ceil(np.log2(side.count[both])).astype(np.int64) for side in sides]
    kind, num_kinds = number(digits[0] * 64 + digits[1])
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for own in (both[kind == each] for each in range(num_kinds)):
        width = max(1, CELLS_AT_ONCE // int(sides[0].count[own].max() * sides[1].count[own].max()))
        for some in (own[start : start + width] for start in range(0, len(own), width)):
            table = _overlap_table(*(side.table(some) for side in sides))
            place, truth, other = np.unravel_index(np.flatnonzero(table), table.shape)  # faster than nonzero
            found.append((sides[0].first[some][place] + truth, sides[1].first[some][place] + other))
    row, column = (np.concatenate(each) for each in zip(*found, strict=True))
    if num_kinds > 1:
        order = np.argsort(row, kind="stable")
        row, column = row[order], column[order]
    iou = _iou(sides[0].columns, sides[1].columns, row, column)
    positive = iou > 0
    return (row, column, iou) if positive.all() else (row[positive], column[positive], iou[positive])


class _Side:
    """True or tracked boxes, ``columns`` ``(4, N)``, and where each group begins and how many it has."""

    def __init__(self, boxes: Floats, group: Integers, num_groups: int) -> None:
        self.columns: Floats = np.ascontiguousarray(boxes.T)  # NumPy is several times faster than on rows of four
        self.count = np.bincount(group, minlength=num_groups)
        self.first = np.cumsum(self.count) - self.count

    def table(self, groups: Integers) -> Floats:
        """Return ``(4, groups, most boxes of a group)``; NaN, which overlaps nothing, where a group has fewer."""
        count = self.count[groups, None]
        place = np.arange(int(count.max()))
        outside = place >= count
        row = self.first[groups, None] + place
        row[outside] = 0
        table = self.columns[:, row]
        table[:, outside] = np.nan
        return table


def _overlap_table(truths: Floats, others: Floats) -> Flags:
    left, top, right, bottom = truths[..., None]
    other_left, other_top, other_right, other_bottom = others[:, :, None]
    table: Flags = left < other_right
    table &= other_left < right
    table &= top < other_bottom
    table &= other_top < bottom
    return table


def _iou(truths: Floats, others: Floats, row: Integers, column: Integers) -> Floats:
    """Return the IoU of each pair as TrackEval computes it, to the last bit; 0 for boxes without area."""
    left, top, right, bottom = truths[:, row]
    other_left, other_top, other_right, other_bottom = others[:, column]
    overlap = np.maximum(np.minimum(right, other_right) - np.maximum(left, other_left), 0)
    overlap *= np.maximum(np.minimum(bottom, other_bottom) - np.maximum(top, other_top), 0)
    area, other_area = _area(truths)[row], _area(others)[column]
    union = area + other_area - overlap
    solid = (area > EPSILON) & (other_area > EPSILON) & (union > EPSILON)
    if not solid.all():
        overlap[~solid], union[~solid] = 0, 1
    iou: Floats = overlap / union
    return iou


def _area(columns: Floats) -> Floats:
    left, top, right, bottom = columns
    area: Floats = (right - left) * (bottom - top)
    return area


def _preprocess(
    truths: _Columns, tracked: _Columns, group: Integers, truth: Integers, found: Integers, iou: Floats
) -> tuple[Flags, Flags]:
    """Return which true and which tracked boxes count: MOTChallenge's preprocessing."""
    some = np.zeros(int(group.max()) + 1, bool)
    some[group[truths.ignored]] = True
    near = np.flatnonzero((iou >= IGNORED_IOU - EPSILON) & some[group[truth]])
    match = near[assign(truth[near], found[near], iou[near])]
    kept = np.ones(len(tracked.id), bool)
    kept[found[match][truths.ignored[truth[match]]]] = False
    return ~(truths.ignored | truths.excluded), kept
