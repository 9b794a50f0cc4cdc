"""Average precision: three ways to sum up precision-recall curves, of any number of classes and rows at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["HitCurves", "PrecisionRecallCurve"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

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


class HitCurves(NamedTuple):
    """K precision-recall curves by their H true positives, one curve after the other.

    Attributes:
        precision: The highest precision at the recall of each true positive or a higher recall, ``(H,)``.
        start: Where each curve begins, and H, ``(K + 1,)``.
        num_truths: Ground truths of each curve, ``(K,)``: the recalls of its true positives are 1/G, 2/G, ...

    Example:
        >>> curves = HitCurves.of(np.array([1 / 2, 2 / 3, 1, 2 / 3]), np.array([0, 2, 4]), np.array([3, 2]))
        >>> curves.precision
        array([0.66666667, 0.66666667, 1.        , 0.66666667])
        >>> curves.area()  # 2/3 * 2/3, and 0.5 * 1 + 0.5 * 2/3
        array([0.44444444, 0.83333333])
        >>> HitCurves.of(np.array([1.0]), np.array([0, 1]), np.array([2])).eleven_point()  # 6 of 11 recalls are reached
        array([0.54545455])
    """

    precision: Floats
    start: Integers
    num_truths: Integers

    @classmethod
    def of(cls, precision: Floats, start: Integers, num_truths: Integers) -> HitCurves:
        """Return the curves of the plain precision at each true positive."""
        # Complex numbers are ordered by their real part first: the highest from the end that stops at each curve.
        curve = np.repeat(np.arange(len(num_truths), dtype=np.float64), np.diff(start))
        highest = np.maximum.accumulate((-curve + 1j * precision)[::-1])[::-1]
        return cls(highest.imag, start, num_truths)

    def eleven_point(self) -> Floats:
        """Return the mean of the highest precision at recalls of at least 0, 0.1, ..., 1 (PASCAL VOC 2007), ``(K,)``.

        It is NaN, as every average, without ground truth.
        """
        return self._sampled(ELEVEN_RECALLS)

    def coco(self) -> Floats:
        """Return the mean of the highest precision at recalls of at least 0, 0.01, ..., 1 (COCO), ``(K,)``."""
        return self._sampled(COCO_RECALLS)

    def area(self) -> Floats:
        """Return the area under each curve (PASCAL VOC since 2010), ``(K,)``."""
        count = np.diff(self.start)
        curve = np.repeat(np.arange(len(count)), count)
        number = np.arange(1, len(self.precision) + 1) - self.start[curve]
        steps = number / self.num_truths[curve] - (number - 1) / self.num_truths[curve]
        return self._defined(np.bincount(curve, steps * self.precision, minlength=len(count)))

    def _sampled(self, at: Floats) -> Floats:
        truths, which = np.unique(self.num_truths, return_inverse=True)
        before = [np.searchsorted(np.arange(1, num + 1) / num, at) for num in truths]  # recalls that are lower
        number = np.array(before).reshape(-1, len(at))[which.reshape(-1)]
        index = np.minimum(self.start[:-1, None] + number, max(len(self.precision) - 1, 0))
        reached = number < np.diff(self.start)[:, None]
        precision = np.append(self.precision, 0.0)[np.where(reached, index, -1)]
        return self._defined(precision.mean(axis=1))

    def _defined(self, values: NDArray[Any]) -> Floats:
        return np.where(self.num_truths > 0, values, np.nan)
