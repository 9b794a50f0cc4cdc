"""Match detections to ground truth, in all images and classes at once.

Only a detection and a ground truth of the same class in the same image can match: these are the *pairs*. *Rows* are
the combinations of a size range and an IoU threshold, ranges outside: row ``r * T + t``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .detection_rule import DetectionRule

__all__ = ["Matches", "Pairs", "box_iou", "match", "overlapping_pairs"]

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

PAIRS_AT_ONCE = 1_000_000  # bounds the memory for IoU to about 100 MB


class Pairs(NamedTuple):
    """Detections and ground truths that overlap, ordered by detection, then ground truth."""

    detection: Integers
    truth: Integers
    iou: Floats

    def where(self, chosen: Flags | Integers) -> Pairs:
        """Return some of the pairs."""
        return Pairs(self.detection[chosen], self.truth[chosen], self.iou[chosen])


class Matches(NamedTuple):
    """What a detection was matched with in each row, one entry a match, ordered by row.

    A detection that stands in no entry of a row is a false positive there.
    """

    row: Integers
    detection: Integers
    truth: Integers
    iou: Floats
    ignored: Flags  # matched with an ignored ground truth: neither true nor false

    def where(self, chosen: Flags | Integers) -> Matches:
        """Return some of the matches."""
        return Matches(
            self.row[chosen], self.detection[chosen], self.truth[chosen], self.iou[chosen], self.ignored[chosen]
        )


def box_iou(boxes: Floats, others: Floats, pixel: float = 0.0, crowd: Flags | None = None) -> Floats:
    """Return the IoU of each box with the one in the same row of ``others``.

    Args:
        boxes: ``xyxy``, shape ``(N, 4)``.
        others: ``xyxy``, shape ``(N, 4)``.
        pixel: What a side is longer than the difference of its ends: 1 for PASCAL VOC, whose last pixel counts,
            0 for continuous coordinates.
        crowd: Which of the others are crowds, ``(N,)``: the overlap with one is divided by the area of the box.

    Returns:
        IoU ``(N,)`` in the dtype of the boxes; 0 for boxes without area. The order of operations is that of
        mmdet's ``bbox_overlaps``, so that float32 boxes give the same bits.

    Example:
        >>> float(box_iou(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2]]))[0])  # 2 / 6
        0.3333333333333333
    """
    overlap = np.maximum(np.minimum(boxes[:, 2], others[:, 2]) - np.maximum(boxes[:, 0], others[:, 0]) + pixel, 0)
    overlap *= np.maximum(np.minimum(boxes[:, 3], others[:, 3]) - np.maximum(boxes[:, 1], others[:, 1]) + pixel, 0)
    area, other_area = (
        (each[:, 2] - each[:, 0] + pixel) * (each[:, 3] - each[:, 1] + pixel) for each in (boxes, others)
    )
    union = area + other_area - overlap
    if crowd is not None:
        union = np.where(crowd, area, union)
    iou: Floats = overlap / np.maximum(union, np.finfo(overlap.dtype).tiny)
    return iou


def overlapping_pairs(
    groups: Integers,
    truth_groups: Integers,
    iou_of: Callable[[Integers, Integers], Floats],
    enough: Callable[[Floats], Flags],
) -> Pairs:
    """Find every detection and ground truth of one group that overlap enough.

    Args:
        groups: Group of each detection, ``(D,)``.
        truth_groups: Group of each ground truth, ``(G,)``.
        iou_of: Returns the IoU of the detections and ground truths of these indices.
        enough: Returns which IoU make a pair.
    """
    truth_order = np.argsort(truth_groups, kind="stable")
    present, start, size = np.unique(truth_groups[truth_order], return_index=True, return_counts=True)
    slot = np.minimum(np.searchsorted(present, groups), max(len(present) - 1, 0))
    possible = np.flatnonzero(present[slot] == groups) if len(present) else np.empty(0, np.int64)
    first, count = (start[slot[possible]], size[slot[possible]]) if len(possible) else (possible, possible)
    end = np.cumsum(count)
    found = [Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    begin = 0
    while begin < len(possible):
        before = int(end[begin] - count[begin])
        stop = max(begin + 1, int(np.searchsorted(end, before + PAIRS_AT_ONCE, "right")))
        some = slice(begin, stop)
        detection = np.repeat(possible[some], count[some])
        offset = np.arange(len(detection)) + np.repeat(first[some] - (end[some] - count[some] - before), count[some])
        truth = truth_order[offset]
        iou = iou_of(detection, truth)
        near = enough(iou)
        found.append(Pairs(detection[near], truth[near], iou[near]))
        begin = stop
    return Pairs(*(np.concatenate(column) for column in zip(*found, strict=True)))


def match(pairs: Pairs, place: Integers, ignored: Flags, crowd: Flags, rule: DetectionRule) -> Matches:
    """Match every row at once, as the rule says.

    ``"overlaps_most"`` (PASCAL VOC): a detection belongs to the ground truth that it overlaps most, taken or not, the
    first of equals. If that overlap is enough, it matches when the ground truth is ignored, or when no detection of
    higher score that overlaps it enough belongs there.

    ``"overlaps_most_free"`` (COCO): in falling order of score each detection takes the ground truth that it overlaps
    most of those still free, the last of equals; an ignored one only if no other is to be had. A crowd is never
    taken.

    Args:
        pairs: Overlaps that are enough for the lowest threshold.
        place: Place of each detection in falling order of score, ``(D,)``.
        ignored: Which ground truths are ignored in each size range, ``(R, G)``.
        crowd: Which ground truths are crowds, and ignored, ``(G,)``.
        rule: Its assignment, thresholds and comparison are used.
    """
    if len(pairs.detection) == 0:
        empty = np.empty(0, np.int64)
        return Matches(empty, empty, empty, np.empty(0), np.empty(0, bool))
    if rule.assignment == "overlaps_most":
        return _match_most(pairs, place, ignored, rule)
    return _match_most_free(pairs, place, ignored, crowd, rule)


def _match_most(pairs: Pairs, place: Integers, ignored: Flags, rule: DetectionRule) -> Matches:
    own = _first_of_runs(pairs.detection)
    best_iou = np.maximum.reduceat(pairs.iou, own)
    is_best = pairs.iou == np.repeat(best_iou, np.diff(np.append(own, len(pairs.iou))))
    best = pairs.where(is_best)
    best = best.where(_first_of_runs(best.detection))
    best = best.where(np.lexsort((place[best.detection], best.truth)))
    rows, found = [], []
    for number, threshold in enumerate(rule.iou_thresholds):
        near = np.flatnonzero(rule.reached(best.iou, threshold))
        highest = np.zeros(len(near), bool)
        highest[_first_of_runs(best.truth[near])] = True
        for size, flags in enumerate(ignored):
            matched = near[highest | flags[best.truth[near]]]
            rows.append(np.full(len(matched), size * len(rule.iou_thresholds) + number))
            found.append(matched)
    row, chosen = np.concatenate(rows), np.concatenate(found)
    order = np.argsort(row, kind="stable")
    row, chosen = row[order], chosen[order]
    matched = best.where(chosen)
    return Matches(row, *matched, ignored[row // len(rule.iou_thresholds), matched.truth])


def _match_most_free(pairs: Pairs, place: Integers, ignored: Flags, crowd: Flags, rule: DetectionRule) -> Matches:
    # All rows at once; a ground truth that is ignored in a row comes after all others there.
    thresholds = np.tile(rule.iou_thresholds, len(ignored))
    row_ignored = np.repeat(ignored, len(rule.iou_thresholds), axis=0)
    free = np.ones(row_ignored.shape, bool)
    found = []
    for some in _steps(pairs, place):
        step = pairs.where(some)
        own = _first_of_runs(step.detection)
        possible = free[:, step.truth] & rule.reached(step.iou, thresholds[:, None])
        flags = row_ignored[:, step.truth]
        chosen = _best(possible & ~flags, step, own)
        fallback = _best(possible & flags, step, own)
        chosen = np.where(chosen >= 0, chosen, fallback)
        row, column = np.nonzero(chosen >= 0)
        matched = step.where(chosen[row, column])
        free[row, matched.truth] = crowd[matched.truth]
        found.append((row, *matched))
    row, detection, truth, iou = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(row, kind="stable")
    row, detection, truth, iou = row[order], detection[order], truth[order], iou[order]
    return Matches(row, detection, truth, iou, row_ignored[row, truth])


def _steps(pairs: Pairs, place: Integers) -> list[Integers]:
    """Split the pairs so that each step has at most one detection for a ground truth, higher scores first.

    Detections that share no ground truth, even through others, do not touch each other: of such a set the k-th takes
    its turn in step k.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    own = _first_of_runs(pairs.detection)
    number = np.cumsum(np.isin(np.arange(len(pairs.detection)), own)) - 1
    _, truth = np.unique(pairs.truth, return_inverse=True)
    nodes = len(own) + int(truth.max()) + 1
    edges = coo_array((np.ones(len(number), np.int8), (number, len(own) + truth)), shape=(nodes, nodes))
    component = connected_components(edges, directed=False)[1][: len(own)]
    order = np.lexsort((place[pairs.detection[own]], component))
    starts = _first_of_runs(component[order])
    turn = np.empty(len(own), np.int64)
    turn[order] = np.arange(len(own)) - np.repeat(starts, np.diff(np.append(starts, len(own))))
    by_turn = np.argsort(turn[number], kind="stable")
    return np.split(by_turn, np.flatnonzero(np.diff(turn[number][by_turn])) + 1)


def _best(possible: Flags, step: Pairs, own: Integers) -> Integers:
    """Return for each detection which pair has the highest IoU of the possible ones, the last of equals, or -1."""
    masked = np.where(possible, step.iou, -1)
    lengths = np.diff(np.append(own, len(step.iou)))
    highest = np.repeat(np.maximum.reduceat(masked, own, axis=1), lengths, axis=1)
    number = np.where(possible & (masked == highest), np.arange(len(step.iou)), -1)
    best: Integers = np.maximum.reduceat(number, own, axis=1)
    return best


def _first_of_runs(values: Integers) -> Integers:
    """Return where a value differs from the one before."""
    if len(values) == 0:
        return np.empty(0, np.int64)
    return np.flatnonzero(np.append(True, values[1:] != values[:-1]))
