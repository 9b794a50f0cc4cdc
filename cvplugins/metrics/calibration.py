"""How well a confidence foretells the fraction of right answers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .matching import Floats, Integers

__all__ = ["Calibration", "calibrate"]


class Calibration(NamedTuple):
    """A reliability curve over B bins of equal width; bin i holds confidences in ``(i / B, (i + 1) / B]``.

    The first bin also holds 0. Empty bins are NaN in ``confidence`` and ``accuracy``.

    Attributes:
        decisions: How many there are per bin, ``(B,)``.
        confidence: Their mean confidence, ``(B,)``.
        accuracy: The fraction of them that is right, ``(B,)``.
    """

    decisions: Integers
    confidence: Floats
    accuracy: Floats

    def expected_error(self) -> float:
        """Return the ECE, the mean gap between confidence and accuracy over decisions; NaN without any.

        Guo et al., On Calibration of Modern Neural Networks, ICML 2017, arXiv:1706.04599.
        """
        filled = self.decisions > 0
        if not filled.any():
            return float("nan")
        return float((self._gaps()[filled] * self.decisions[filled]).sum() / self.decisions.sum())

    def maximum_error(self) -> float:
        """Return the MCE, the largest gap of a bin; NaN without any decision."""
        gaps = self._gaps()[self.decisions > 0]
        return float(gaps.max()) if len(gaps) else float("nan")

    def _gaps(self) -> Floats:
        gaps: Floats = np.abs(self.confidence - self.accuracy)
        return gaps


def calibrate(confidence: Floats, right: NDArray[np.bool_], bins: int = 15) -> Calibration:
    """Return the reliability curve; no bin holds anything if a confidence lies outside [0, 1] or is NaN.

    Args:
        confidence: Probability that each decision is right, ``(M,)``.
        right: Whether it is, ``(M,)``.
        bins: Number of bins.

    Example:
        >>> round(calibrate(np.array([0.9, 0.8]), np.array([True, False]), bins=2).expected_error(), 6)
        0.35
    """
    order = np.argsort(confidence)  # a sum in rising order does not depend on the order of the samples
    confidence, right = confidence[order].astype(np.float64), right[order]
    if len(confidence) and not (confidence[0] >= 0 and confidence[-1] <= 1):
        confidence, right = confidence[:0], right[:0]
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence, side="left")
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, confidence, bins) / count
        accuracy = np.bincount(place[right], minlength=bins) / count
    return Calibration(count, mean, accuracy)
