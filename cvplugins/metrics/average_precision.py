"""Average precision: three ways to sum up precision-recall curves, of many rows at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "PrecisionRecallCurve",
    "area_average_precision",
    "coco_average_precision",
    "eleven_point_average_precision",
    "precision_envelope",
]

Floats = NDArray[np.float64]

# As NumPy spells 0, 0.1, ..., 1; the fourth is 0.30000000000000004, which a recall of 3 / 10 does not reach.
# mmdet and detectron2 use the same.
ELEVEN_RECALLS = np.arange(0, 1.001, 0.1)
COCO_RECALLS = np.linspace(0, 1, 101)


class PrecisionRecallCurve(NamedTuple):
    """Precision and recall of one class after each detection, in falling order of score; each ``(D,)``.

    Recall is NaN for a class without ground truth.
    """

    precision: Floats
    recall: Floats
    score: NDArray[np.floating]

    def corners(self) -> PrecisionRecallCurve:
        """Return only the points at true positives, which fix the curve and are few."""
        found = np.diff(self.recall, prepend=0.0) > 0
        return PrecisionRecallCurve(self.precision[found], self.recall[found], self.score[found])


def precision_envelope(precision: Floats) -> Floats:
    """Return the highest precision at each recall or a higher one.

    Args:
        precision: Precision when the k-th ground truth is found, 0 for those never found, ``(..., G)``: the recalls
            are 1/G, 2/G, ..., 1.

    Returns:
        The same shape, falling along the last axis.

    Example:
        >>> precision_envelope(np.array([1 / 2, 2 / 3, 0]))
        array([0.66666667, 0.66666667, 0.        ])
    """
    envelope: Floats = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    return envelope


def area_average_precision(envelope: Floats) -> Floats:
    """Return the area under each curve (PASCAL VOC since 2010).

    >>> area_average_precision(precision_envelope(np.array([1.0, 2 / 3])))  # 0.5 * 1 + 0.5 * 2/3
    array(0.83333333)
    """
    found = np.arange(1, envelope.shape[-1] + 1) / envelope.shape[-1]
    return np.asarray(np.sum(np.diff(found, prepend=0.0) * envelope, axis=-1))


def eleven_point_average_precision(envelope: Floats) -> Floats:
    """Return the mean of the highest precision at recalls of at least 0, 0.1, ..., 1 (PASCAL VOC 2007).

    >>> eleven_point_average_precision(np.array([1.0, 0.0]))  # 6 of 11 recalls are reached
    array(0.54545455)
    """
    return _sampled(envelope, ELEVEN_RECALLS)


def coco_average_precision(envelope: Floats) -> Floats:
    """Return the mean of the highest precision at recalls of at least 0, 0.01, ..., 1 (COCO).

    >>> coco_average_precision(np.array([1.0, 0.0]))  # 51 of 101 recalls are reached
    array(0.5049505)
    """
    return _sampled(envelope, COCO_RECALLS)


def _sampled(envelope: Floats, at: Floats) -> Floats:
    found = np.arange(1, envelope.shape[-1] + 1) / envelope.shape[-1]
    # A recall of 1.0 can only be missed by rounding of the recalls asked for.
    reached = np.minimum(np.searchsorted(found, at, side="left"), len(found))
    padded = np.concatenate([envelope, np.zeros((*envelope.shape[:-1], 1))], axis=-1)
    return np.asarray(padded[..., reached].mean(axis=-1))
