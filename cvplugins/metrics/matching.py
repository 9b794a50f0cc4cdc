"""Match detections to ground truth, in all images and classes at once.

A *group* is one class in one image: only inside a group can a detection match. Detections are ordered by group
and then by falling score, ground truth by group with the ignored ones last; both rules below rely on it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Matches", "Pairs", "box_iou", "match_coco", "match_voc", "overlapping_pairs"]

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

PAIRS_AT_ONCE = 4_000_000  # bounds the memory for IoU to about 300 MB


class Pairs(NamedTuple):
    """Detections and ground truths of the same group that overlap, ordered by detection, then ground truth."""

    detection: Integers
    truth: Integers
    iou: Floats


class Matches(NamedTuple):
    """What became of each detection at each IoU threshold, both ``(T, D)``; neither means false positive."""

    true_positive: Flags
    ignored: Flags


def box_iou(boxes: Floats, others: Floats, pixel: float = 0.0) -> Floats:
    """Return the IoU of each box with the one in the same row of ``others``.

    Args:
        boxes: ``xyxy``, shape ``(N, 4)``.
        others: ``xyxy``, shape ``(N, 4)``.
        pixel: What a side is longer than the difference of its ends: 1 for PASCAL VOC, whose last pixel counts,
            0 for continuous coordinates.

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
    iou: Floats = overlap / np.maximum(area + other_area - overlap, np.finfo(overlap.dtype).tiny)
    return iou


def overlapping_pairs(
    boxes: Floats, groups: Integers, truth_boxes: Floats, truth_groups: Integers, min_iou: float, pixel: float = 0.0
) -> Pairs:
    """Find every detection and ground truth of one group whose IoU is at least ``min_iou``.

    Args:
        boxes: Detections, ``xyxy``, shape ``(D, 4)``.
        groups: Group of each detection, ``(D,)``.
        truth_boxes: Ground truth, ``xyxy``, shape ``(G, 4)``.
        truth_groups: Group of each ground truth, ``(G,)``, rising.
        min_iou: Smallest IoU that can match.
        pixel: See :func:`box_iou`.
    """
    first = np.searchsorted(truth_groups, groups, "left")
    count = np.searchsorted(truth_groups, groups, "right") - first
    end = np.cumsum(count)
    found = [Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, boxes.dtype))]
    start = 0
    while start < len(boxes):
        pairs_before = end[start] - count[start]
        stop = max(start + 1, int(np.searchsorted(end, pairs_before + PAIRS_AT_ONCE, "right")))
        some = slice(start, stop)
        detection = np.repeat(np.arange(start, stop), count[some])
        offset = np.arange(len(detection)) - np.repeat(end[some] - count[some] - pairs_before, count[some])
        truth = first[detection] + offset
        iou = box_iou(boxes[detection], truth_boxes[truth], pixel)
        near = iou >= min_iou
        found.append(Pairs(detection[near], truth[near], iou[near]))
        start = stop
    return Pairs(*(np.concatenate(column) for column in zip(*found, strict=True)))


def match_voc(pairs: Pairs, num_detections: int, ignored_truth: Flags, thresholds: Floats) -> Matches:
    """Match as PASCAL VOC does.

    A detection belongs to the ground truth that it overlaps most, taken or not. At or above the threshold it is
    a true positive if no detection of higher score belongs there, a false positive (duplicate) if one does, and
    ignored if the ground truth is (difficult).

    Args:
        pairs: Overlaps down to the lowest threshold.
        num_detections: D.
        ignored_truth: Which ground truths are ignored, ``(G,)``.
        thresholds: IoU that is enough, ``(T,)``.
    """
    matches = _no_matches(len(thresholds), num_detections)
    if len(pairs.detection) == 0:
        return matches
    detection, first = np.unique(pairs.detection, return_index=True)
    best_iou = np.maximum.reduceat(pairs.iou, first)
    is_best = pairs.iou == np.repeat(best_iou, np.diff(np.append(first, len(pairs.iou))))
    _, first_best = np.unique(pairs.detection[is_best], return_index=True)
    truth = pairs.truth[is_best][first_best]
    for row, threshold in enumerate(thresholds):
        enough = best_iou >= threshold
        ignored = ignored_truth[truth]
        matches.ignored[row, detection[enough & ignored]] = True
        counts = enough & ~ignored
        _, highest = np.unique(truth[counts], return_index=True)
        matches.true_positive[row, detection[counts][highest]] = True
    return matches


def match_coco(pairs: Pairs, num_detections: int, rank: Integers, ignored_truth: Flags, thresholds: Floats) -> Matches:
    """Match as COCO does.

    In falling order of score each detection takes the ground truth that it overlaps most of those still free,
    at or above the threshold; an ignored one only if no other is to be had, and then the detection is ignored.
    Of equal overlaps the later ground truth wins.

    Args:
        pairs: Overlaps down to the lowest threshold.
        num_detections: D.
        rank: Place of each detection in its group, 0 for the highest score, ``(D,)``.
        ignored_truth: Which ground truths are ignored, ``(G,)``.
        thresholds: IoU that is enough, ``(T,)``.
    """
    matches = _no_matches(len(thresholds), num_detections)
    free = np.ones((len(thresholds), len(ignored_truth)), bool)
    order = np.argsort(rank[pairs.detection], kind="stable")
    ranks, starts = np.unique(rank[pairs.detection][order], return_index=True)
    # One step a rank: a group has one detection of each rank, so all groups can go together.
    for some in np.split(order, starts[1:]) if len(ranks) else []:
        detections, first = np.unique(pairs.detection[some], return_index=True)
        truth, iou = pairs.truth[some], pairs.iou[some]
        possible = free[:, truth] & (iou >= thresholds[:, None])
        regular = _best_truth(possible & ~ignored_truth[truth], iou, truth, first)
        fallback = _best_truth(possible & ignored_truth[truth], iou, truth, first)
        chosen = np.where(regular >= 0, regular, fallback)
        row, column = np.nonzero(chosen >= 0)
        free[row, chosen[row, column]] = False
        matches.true_positive[:, detections] = regular >= 0
        matches.ignored[:, detections] = (regular < 0) & (fallback >= 0)
    return matches


def _no_matches(num_thresholds: int, num_detections: int) -> Matches:
    shape = (num_thresholds, num_detections)
    return Matches(np.zeros(shape, bool), np.zeros(shape, bool))


def _best_truth(possible: Flags, iou: Floats, truth: Integers, first: Integers) -> Integers:
    """Return for each detection the possible ground truth with the highest IoU, the last of equals, or -1."""
    masked = np.where(possible, iou, -1)
    best = np.maximum.reduceat(masked, first, axis=1)
    lengths = np.diff(np.append(first, len(iou)))
    is_best = possible & (masked == np.repeat(best, lengths, axis=1))
    chosen: Integers = np.maximum.reduceat(np.where(is_best, truth, -1), first, axis=1)
    return chosen
