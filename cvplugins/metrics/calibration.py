"""How well a confidence foretells the fraction of right answers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .matching import Floats, Integers

__all__ = ["Calibration", "calibrate", "calibration_of_bins", "sum_by_bin"]


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
    place = _place(confidence, bins)
    total = np.bincount(place, confidence, bins)
    return _calibration(np.bincount(place, minlength=bins), total, np.bincount(place[right], minlength=bins))


def sum_by_bin(
    confidence: NDArray[Any], right: NDArray[np.bool_], counts: NDArray[np.bool_], bins: int
) -> tuple[Integers, Floats, Integers]:
    """Return per sample and bin what :func:`calibration_of_bins` needs, each ``(N, B)``.

    Args:
        confidence: Probability that each of M decisions of a sample is right, ``(N, M)``.
        right: Whether it is, ``(N, M)``.
        counts: Which decisions count, ``(N, M)``.
        bins: Number of bins B.

    Returns:
        Decisions, their summed confidence (NaN if one lies outside of [0, 1]), and those that are right.
    """
    key = (np.arange(len(confidence))[:, None] * bins + _place(confidence, bins))[counts]
    value = confidence[counts].astype(np.float64)
    value[(value < 0) | (value > 1)] = np.nan
    shape = (len(confidence), bins)
    total: NDArray[Any] = np.bincount(key, value, shape[0] * bins).reshape(shape)
    count, hits = (np.bincount(each, minlength=shape[0] * bins).reshape(shape) for each in (key, key[right[counts]]))
    return count, total, hits


def calibration_of_bins(decisions: Integers, confidence: Floats, right: Integers) -> Calibration:
    """Return the reliability curve of samples from their sums per bin, ``(N, B)``, in any order of the samples."""
    if np.isnan(confidence).any():
        decisions, confidence, right = decisions[:0], confidence[:0], right[:0]
    total = np.sort(confidence, axis=0).sum(axis=0)
    return _calibration(decisions.sum(axis=0, dtype=np.int64), total, right.sum(axis=0, dtype=np.int64))


def _place(confidence: NDArray[Any], bins: int) -> Integers:
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence, side="left")


def _calibration(decisions: Integers, confidence: NDArray[Any], right: Integers) -> Calibration:
    with np.errstate(invalid="ignore"):
        return Calibration(decisions, confidence / decisions, right / decisions)
