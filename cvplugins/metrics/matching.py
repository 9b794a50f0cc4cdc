"""Match detections to ground truth, in all images and classes at once.

Only a detection and a ground truth of the same class in the same image can match: these are the *pairs*. *Rows* are
the combinations of a size range and an IoU threshold, ranges outside: row ``r * T + t``. A detection that alone wants
its ground truths needs no loop: it takes one at the thresholds that it reaches and none of higher score does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .crowded_images import Candidates
from .detection_rule import DetectionRule

__all__ = ["Matches", "Pairs", "best_pairs", "box_iou", "match", "overlapping_pairs", "sized_box_iou"]

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

PAIRS_AT_ONCE = 32_768  # the columns of so many boxes stay in a processor's cache, three times as fast as a million


class Pairs(NamedTuple):
    """Detections and ground truths that overlap, ordered by detection, then ground truth."""

    detection: Integers
    truth: Integers
    iou: Floats

    def where(self, chosen: Flags | Integers) -> Pairs:
        """Return some of the pairs."""
        return Pairs(self.detection[chosen], self.truth[chosen], self.iou[chosen])


class Matches(NamedTuple):
    """What a detection was matched with in each row, one entry a match, ordered by row, then detection.

    A detection that stands in no entry of a row is a false positive there, or outside of its size range.
    """

    row: Integers
    detection: Integers
    truth: Integers
    iou: Floats
    ignored: Flags  # matched with an ignored ground truth: neither true nor false

    def where(self, chosen: Flags) -> Matches:
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
    (left, top, right, bottom), (other_left, other_top, other_right, other_bottom) = boxes.T, others.T
    overlap = np.maximum(np.minimum(right, other_right) - np.maximum(left, other_left) + pixel, 0)
    overlap *= np.maximum(np.minimum(bottom, other_bottom) - np.maximum(top, other_top) + pixel, 0)
    area = (right - left + pixel) * (bottom - top + pixel)
    other_area = (other_right - other_left + pixel) * (other_bottom - other_top + pixel)
    union = area + other_area - overlap
    if crowd is not None:
        union = np.where(crowd, area, union)
    iou: Floats = overlap / np.maximum(union, np.finfo(overlap.dtype).tiny)
    return iou


def sized_box_iou(boxes: Floats, others: Floats, crowd: Flags | None = None) -> Floats:
    """Return the IoU of each box with the one in the same column of ``others``, by areas that are known.

    The order of operations is that of pycocotools' ``bbIou`` (``common/maskApi.c``), so that float64 gives the same
    bits.

    Args:
        boxes: Left, top, right, bottom and area, shape ``(5, N)``.
        others: The same.
        crowd: See :func:`box_iou`.

    Example:
        >>> half, whole = np.array([[1.2, 5, 1.2 + 7.45, 15, 7.45 * 10]]).T, np.array([[1.2, 5, 1.2 + 14.9, 15, 149]]).T
        >>> float(sized_box_iou(half, whole)[0])
        0.5
        >>> float(box_iou(half[:4].T, whole[:4].T)[0])  # the corners give a width of 7.449999999999999
        0.4999999999999999
    """
    (left, top, right, bottom, area), (other_left, other_top, other_right, other_bottom, other_area) = boxes, others
    overlap = np.maximum(np.minimum(right, other_right) - np.maximum(left, other_left), 0)
    overlap *= np.maximum(np.minimum(bottom, other_bottom) - np.maximum(top, other_top), 0)
    union = area + other_area - overlap
    if crowd is not None:
        union = np.where(crowd, area, union)
    iou: Floats = np.divide(overlap, union, out=np.zeros_like(overlap), where=overlap > 0)
    return iou


def overlapping_pairs(
    groups: Integers,
    truth_groups: Integers,
    chosen: Integers,
    iou_of: Callable[[Integers, Integers], Floats],
    enough: Callable[[Floats], Flags],
    narrow: Callable[[Candidates, Integers], Candidates] | None = None,
) -> Pairs:
    """Find every detection and ground truth of one group that overlap enough.

    Args:
        groups: Group of each detection, ``(D,)``.
        truth_groups: Group of each ground truth, ``(G,)``.
        chosen: Indices of the detections that are wanted, rising.
        iou_of: Returns the IoU of the detections and ground truths of these indices.
        enough: Returns which IoU make a pair.
        narrow: Leaves out candidates of the detections of these indices that cannot overlap enough.
    """
    truth_order = np.argsort(truth_groups, kind="stable")
    first, count = _spans(truth_groups[truth_order], groups[chosen])
    possible = np.flatnonzero(count)
    chosen, first, count = chosen[possible], first[possible], count[possible]
    if narrow is not None and count.sum() > PAIRS_AT_ONCE:
        truth_order, first, count = narrow(Candidates(truth_order, first, count), chosen)
        possible = np.flatnonzero(count)
        chosen, first, count = chosen[possible], first[possible], count[possible]
    end = np.cumsum(count)
    found = [Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    begin = 0
    while begin < len(chosen):
        before = int(end[begin] - count[begin])
        stop = max(begin + 1, int(np.searchsorted(end, before + PAIRS_AT_ONCE, "right")))
        some = slice(begin, stop)
        detection = np.repeat(chosen[some], count[some])
        offset = np.arange(len(detection)) + np.repeat(first[some] - (end[some] - count[some] - before), count[some])
        truth = truth_order[offset]
        iou = iou_of(detection, truth)
        near = np.flatnonzero(enough(iou))
        found.append(Pairs(detection[near], truth[near], iou[near]))
        begin = stop
    # Without the empty start, lest float32 become float64.
    return Pairs(*(np.concatenate(column) for column in zip(*(found[1:] or found), strict=True)))


def _spans(ordered: Integers, wanted: Integers) -> tuple[Integers, Integers]:
    """Return where each wanted value begins in an ordered array, and how often it is there."""
    size = max(int(values.max(initial=-1)) for values in (ordered, wanted)) + 1
    if size <= 8 * (len(ordered) + len(wanted)):  # a table is faster than a search, if it is small
        counts = np.bincount(ordered, minlength=size)
        return (np.cumsum(counts) - counts)[wanted], counts[wanted]
    first = np.searchsorted(ordered, wanted)
    return first, np.searchsorted(ordered, wanted, "right") - first


def match(pairs: Pairs, ignored: Flags, outside: Flags, crowd: Flags, rule: DetectionRule) -> Matches:
    """Match every row at once, as the rule says.

    ``"overlaps_most"`` (PASCAL VOC): a detection belongs to the ground truth that it overlaps most, taken or not, the
    first of equals. If that overlap is enough, it matches when the ground truth is ignored, or when no detection of
    higher score that overlaps it enough belongs there.

    ``"overlaps_most_free"`` (COCO): in falling order of score each detection takes the ground truth that it overlaps
    most of those still free, the last of equals; an ignored one only if no other is to be had. A crowd is never
    taken.

    Args:
        pairs: Overlaps that are enough for the lowest threshold; detections are numbered in falling order of score.
        ignored: Which ground truths are ignored in each size range, ``(R, G)``.
        outside: Which detections are outside of each size range, ``(R, D)``. Those that match an ignored ground truth
            count no more than they did before, and are left out.
        crowd: Which ground truths are crowds, and ignored, ``(G,)``.
        rule: Its assignment, thresholds and comparison are used.
    """
    order = np.argsort(pairs.detection * (len(crowd) + 1) + pairs.truth)
    pairs = pairs.where(order)
    if rule.assignment == "overlaps_most":
        found = [_first_come(pairs, best_pairs(pairs), ignored, ignored, outside, rule)]
    else:
        simple = _uncontested(pairs, len(crowd))
        found = [_first_come(pairs, np.flatnonzero(simple), crowd[None], ignored, outside, rule)]
        found.append(_in_turn(pairs, np.flatnonzero(~simple), crowd, ignored, outside, rule))
    # A match is named by row and pair, so that their numbers' order is that of the matches.
    row, chosen = np.divmod(np.sort(np.concatenate(found)), max(len(order), 1))
    matched = pairs.where(chosen)
    return Matches(row, *matched, ignored[row // len(rule.iou_thresholds), matched.truth])


def best_pairs(pairs: Pairs) -> Integers:
    """Return the pair of each detection with the highest IoU, the first of equals."""
    own = _first_of_runs(pairs.detection)
    if len(own) == len(pairs.detection):
        return own
    highest = np.repeat(np.maximum.reduceat(pairs.iou, own), np.diff(np.append(own, len(pairs.iou))))
    best = np.flatnonzero(pairs.iou == highest)
    return best[_first_of_runs(pairs.detection[best])]


def _uncontested(pairs: Pairs, num_truths: int) -> Flags:
    """Return which pairs are of ground truths that no detection with another choice overlaps."""
    alone = np.bincount(pairs.detection)[pairs.detection] == 1
    contested = np.zeros(num_truths, bool)
    contested[pairs.truth[~alone]] = True
    return ~contested[pairs.truth]


def _first_come(
    pairs: Pairs, chosen: Integers, shared: Flags, ignored: Flags, outside: Flags, rule: DetectionRule
) -> Integers:
    """Give each ground truth to the first detection that overlaps it enough, a shared one to all.

    Args:
        pairs: All P pairs.
        chosen: One pair of each detection.
        shared: Which ground truths any number may have in each size range, ``(R, G)`` or ``(1, G)``.
        ignored: See :func:`match`.
        outside: See :func:`match`.
        rule: Its thresholds.

    Returns:
        Row times P plus pair of each match.
    """
    num_thresholds, num_pairs = len(rule.iou_thresholds), max(len(pairs.truth), 1)
    # By ground truth and then falling score; all keys differ, so that any sort will do.
    chosen = np.sort(pairs.truth[chosen] * num_pairs + chosen) % num_pairs
    truth = pairs.truth[chosen]
    # The number of thresholds that each reaches, and the highest such number of those before it at its ground truth.
    level = rule.num_reached(pairs.iou[chosen])
    lifted = level + truth * (num_thresholds + 1)
    before = np.maximum(np.append(0, np.maximum.accumulate(lifted)[:-1])[: len(chosen)] - (lifted - level), 0)
    found = [np.empty(0, np.int64)]
    for size, flags in enumerate(ignored):
        lowest = np.where(shared[size % len(shared), truth], 0, before)
        match = np.flatnonzero((lowest < level) & ~(flags[truth] & outside[size, pairs.detection[chosen]]))
        count = (level - lowest)[match]
        start = np.cumsum(count) - count
        row = np.arange(count.sum()) + np.repeat(size * num_thresholds + lowest[match] - start, count)
        found.append(row * num_pairs + np.repeat(chosen[match], count))
    return np.concatenate(found)


def _in_turn(
    pairs: Pairs, chosen: Integers, crowd: Flags, ignored: Flags, outside: Flags, rule: DetectionRule
) -> Integers:
    """Let each detection in turn take the best ground truth that is left; see :func:`_first_come`."""
    num_thresholds = len(rule.iou_thresholds)
    level = rule.num_reached(pairs.iou)
    threshold = np.tile(np.arange(num_thresholds), len(ignored))[:, None]
    truths, short = np.unique(pairs.truth[chosen], return_inverse=True)
    truth = np.zeros(len(level), np.int64)
    truth[chosen] = short
    row_ignored = np.repeat(ignored[:, truths], num_thresholds, axis=0)
    free = np.ones(row_ignored.shape, bool)
    found = [np.empty(0, np.int64)]
    for step in _turns(pairs, chosen):
        # The best comes last: of the highest overlap, and not ignored.
        step = step[np.lexsort((pairs.iou[step], pairs.detection[step]))]
        own = _first_of_runs(pairs.detection[step])
        own_truth = truth[step]
        merit = np.arange(len(step)) + len(step) * ~row_ignored[:, own_truth]
        merit = np.where(free[:, own_truth] & (threshold < level[step]), merit, -1)
        best = np.maximum.reduceat(merit, own, axis=1)
        row, column = np.nonzero(best >= 0)
        taken = step[best[row, column] % len(step)]
        free[row, truth[taken]] = crowd[pairs.truth[taken]]
        counts = ~(row_ignored[row, truth[taken]] & outside[row // num_thresholds, pairs.detection[taken]])
        found.append(row[counts] * len(level) + taken[counts])
    return np.concatenate(found)


def _turns(pairs: Pairs, chosen: Integers) -> list[Integers]:
    """Split some pairs so that each part has at most one detection for a ground truth, higher scores first.

    Detections that share no ground truth, even through others, do not touch each other: of such a set the k-th takes
    its turn in part k.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if len(chosen) == 0:
        return []
    own = _first_of_runs(pairs.detection[chosen])
    lengths = np.diff(np.append(own, len(chosen)))
    number = np.repeat(np.arange(len(own)), lengths)
    _, truth = np.unique(pairs.truth[chosen], return_inverse=True)
    nodes = len(own) + int(truth.max()) + 1
    edges = coo_array((np.ones(len(number), np.int8), (number, len(own) + truth)), shape=(nodes, nodes))
    component = connected_components(edges, directed=False)[1][: len(own)]
    order = np.argsort(component, kind="stable")
    starts = _first_of_runs(component[order])
    turn = np.empty(len(own), np.int64)
    turn[order] = np.arange(len(own)) - np.repeat(starts, np.diff(np.append(starts, len(own))))
    by_turn = np.argsort(turn[number], kind="stable")
    return np.split(chosen[by_turn], np.flatnonzero(np.diff(turn[number][by_turn])) + 1)


def _first_of_runs(values: Integers) -> Integers:
    """Return where a value differs from the one before."""
    if len(values) == 0:
        return np.empty(0, np.int64)
    return np.flatnonzero(np.append(True, values[1:] != values[:-1]))
