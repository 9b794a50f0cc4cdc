"""Average precision: three ways to sum up a precision-recall curve."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["area_average_precision", "coco_average_precision", "eleven_point_average_precision", "precision_recall"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# As NumPy spells 0, 0.1, ..., 1; the fourth is 0.30000000000000004, which a recall of 3 / 10 does not reach.
# mmdet and detectron2 use the same.
ELEVEN_RECALLS = np.arange(0, 1.001, 0.1)
COCO_RECALLS = np.linspace(0, 1, 101)


def precision_recall(true_positive: Flags, ignored: Flags, num_truths: int) -> tuple[Floats, Floats]:
    """Return precision and recall after each detection.

    Args:
        true_positive: Detections in falling order of score, ``(..., D)``.
        ignored: Detections that count neither way, ``(..., D)``.
        num_truths: Ground truths to be found, at least 1.

    Returns:
        Precision and recall, both ``(..., D)``; precision is 0 before anything counts.

    Example:
        >>> precision_recall(np.array([True, False]), np.array([False, False]), num_truths=2)
        (array([1. , 0.5]), array([0.5, 0.5]))
    """
    hits = np.cumsum(true_positive, axis=-1, dtype=np.float64)
    counted = np.cumsum(~ignored, axis=-1, dtype=np.float64)
    return hits / np.maximum(counted, 1), hits / num_truths


def area_average_precision(precision: Floats, recall: Floats) -> float:
    """Return the area under the curve, precision made falling (PASCAL VOC since 2010).

    >>> area_average_precision(np.array([1.0, 0.5, 2 / 3]), np.array([0.5, 0.5, 1.0]))  # 0.5 * 1 + 0.5 * 2/3
    0.8333333333333333
    """
    steps = np.diff(recall, prepend=0.0)
    return float(np.sum(steps * _made_falling(precision)))


def eleven_point_average_precision(precision: Floats, recall: Floats) -> float:
    """Return the mean of the highest precision at recalls of at least 0, 0.1, ..., 1 (PASCAL VOC 2007).

    >>> eleven_point_average_precision(np.array([1.0]), np.array([0.5]))  # 6 of 11 recalls are reached
    0.5454545454545454
    """
    return float(_sampled(precision, recall, ELEVEN_RECALLS).mean())


def coco_average_precision(precision: Floats, recall: Floats) -> float:
    """Return the mean of the highest precision at recalls of at least 0, 0.01, ..., 1 (COCO).

    >>> coco_average_precision(np.array([1.0]), np.array([0.5]))  # 51 of 101 recalls are reached
    0.504950495049505
    """
    return float(_sampled(precision, recall, COCO_RECALLS).mean())


def _made_falling(precision: Floats) -> Floats:
    falling: Floats = np.maximum.accumulate(precision[::-1])[::-1]
    return falling


def _sampled(precision: Floats, recall: Floats, at: Floats) -> Floats:
    # One 0 more at the end, for recalls that are never reached.
    sampled: Floats = np.append(_made_falling(precision), 0.0)[np.searchsorted(recall, at, side="left")]
    return sampled
