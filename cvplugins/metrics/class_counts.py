"""Precision, recall, specificity and F1 from the counts of each class, and their means over classes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .matching import Floats, Integers

__all__ = ["ClassCounts", "ClassRate", "mean_over_classes"]


class ClassRate(NamedTuple):
    """One rate, such as precision, or one area under a curve.

    Attributes:
        per_class: ``(C,)``.
        macro: Mean over the classes in which the rate is defined.
        weighted: The same, each class weighted by how many samples have it.
        micro: The rate of all decisions together.
    """

    per_class: Floats
    macro: float
    weighted: float
    micro: float


class ClassCounts(NamedTuple):
    """Decisions counted per class.

    Attributes:
        hits: Samples that have the class and were given it, ``(C,)``.
        predicted: Samples that were given it, ``(C,)``.
        support: Samples that have it, ``(C,)``.
        num_samples: All samples, or those of which it is known whether they have it, ``(C,)``.
    """

    hits: Integers
    predicted: Integers
    support: Integers
    num_samples: int | Integers

    def rates(self, zero_division: float) -> dict[str, ClassRate]:
        """Return ``precision``, ``recall``, ``specificity`` and ``F1``.

        Args:
            zero_division: The value of 0 / 0, as in scikit-learn; NaN leaves the class out of the means.
        """
        misses = self.support - self.hits
        rejected = self.num_samples - self.support - (self.predicted - self.hits)
        fractions = {
            "precision": (self.hits, self.predicted),
            "recall": (self.hits, self.support),
            "specificity": (rejected, self.num_samples - self.support),
            "F1": (2 * self.hits, self.predicted + self.hits + misses),
        }
        return {name: self._rate(*fraction, zero_division) for name, fraction in fractions.items()}

    def _rate(self, numerator: Integers, denominator: Integers, zero_division: float) -> ClassRate:
        per_class = _divide(numerator, denominator, zero_division)
        total = _divide(numerator.sum(keepdims=True), denominator.sum(keepdims=True), zero_division)
        macro = mean_over_classes(per_class)
        return ClassRate(per_class, macro, mean_over_classes(per_class, self.support), float(total[0]))


def mean_over_classes(values: Floats, weight: NDArray[np.int64] | None = None) -> float:
    """Return the mean of what is not NaN, or NaN if nothing is or all of its weights are 0.

    >>> mean_over_classes(np.array([1.0, np.nan, 0.0]), np.array([3, 5, 1]))
    0.75
    """
    weight = np.ones(len(values), np.int64) if weight is None else weight
    defined = ~np.isnan(values)
    total = weight[defined].sum()
    return float((values[defined] * weight[defined]).sum() / total) if total else float("nan")


def _divide(numerator: Integers, denominator: Integers, zero_division: float) -> Floats:
    result = np.full(len(numerator), zero_division, np.float64)
    return np.divide(numerator, denominator, out=result, where=denominator > 0)
