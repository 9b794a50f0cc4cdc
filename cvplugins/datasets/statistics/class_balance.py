"""Weights of classes, and how often images are repeated, from how often classes occur."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "effective_number_weights",
    "image_repeat_factors",
    "inverse_frequency_weights",
    "median_frequency_weights",
    "suggested_threshold",
]


def inverse_frequency_weights(counts: ArrayLike) -> NDArray[np.float64]:
    """Return weights in proportion to ``1 / counts``, whose mean is 1.

    Args:
        counts: Objects or pixels of each class, ``(C,)``. A class that does not occur has the weight 1.

    Example:
        >>> inverse_frequency_weights([10, 30, 0]).tolist()
        [1.5, 0.5, 1.0]
    """
    counts = np.asarray(counts, np.float64)
    return _of_mean_one(np.divide(1, counts, out=np.zeros_like(counts), where=counts > 0), counts)


def effective_number_weights(counts: ArrayLike, beta: float = 0.999) -> NDArray[np.float64]:
    """Return weights in proportion to ``(1 - beta) / (1 - beta ** n)``, whose mean is 1.

    Reference: Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019, arXiv:1901.05555, whose
    weights sum to the number of classes.

    Args:
        counts: Samples of each class, ``(C,)``: objects, or images for label maps, whose pixels are no samples of their
            own. A class that does not occur has the weight 1.
        beta: At least 0, where all weights are 1, and below 1, towards which they become inverse frequencies.

    Raises:
        ValueError: ``beta`` is outside of [0, 1).
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta is {beta}; expected a number of at least 0 and below 1")
    counts = np.asarray(counts, np.float64)
    effective = 1 - np.power(beta, counts) if beta else (counts > 0).astype(np.float64)
    return _of_mean_one(np.divide(1 - beta, effective, out=np.zeros_like(counts), where=counts > 0), counts)


def median_frequency_weights(counts: ArrayLike, totals: ArrayLike) -> NDArray[np.float64]:
    """Return the median of all frequencies over each class's.

    Reference: Eigen and Fergus, ICCV 2015, arXiv:1411.4734: the frequency of a class is its number of pixels over that
    of all pixels in images where it is.

    Args:
        counts: Pixels or objects of each class, ``(C,)``. A class that does not occur has the weight 1.
        totals: Pixels or objects of the images in which the class is, ``(C,)``.

    Example:
        >>> median_frequency_weights([10, 20, 40], [100, 100, 100]).tolist()
        [2.0, 1.0, 0.5]
    """
    counts, totals = np.asarray(counts, np.float64), np.asarray(totals, np.float64)
    occurs = (counts > 0) & (totals > 0)
    weights = np.ones_like(counts)
    if occurs.any():
        frequency = counts[occurs] / totals[occurs]
        weights[occurs] = np.median(frequency) / frequency
    return weights


def image_repeat_factors(presence: NDArray[np.bool_], threshold: float) -> NDArray[np.float64]:
    """Return how often each image is repeated: ``max over its classes of max(1, sqrt(threshold / frequency))``.

    Reference: Gupta et al., LVIS, CVPR 2019, arXiv:1908.03195, appendix B.2.

    Args:
        presence: Which classes are in which image, ``(M, C)``.
        threshold: The share of images below which a class is rare.
    """
    frequency = presence.mean(axis=0) if len(presence) else np.zeros(presence.shape[1])
    ratio = np.divide(threshold, frequency, out=np.ones_like(frequency), where=frequency > 0)
    of_class = np.maximum(1, np.sqrt(ratio))
    return np.asarray(np.where(presence, of_class, 1.0).max(axis=1, initial=1.0))


def suggested_threshold(presence: NDArray[np.bool_], longest: float = 1.5) -> float:
    """Return the largest frequency of a class for which an epoch with fractional repeats is not much longer.

    Args:
        presence: Which classes are in which image, ``(M, C)``.
        longest: How much longer an epoch may become.

    Returns:
        A threshold; 0 if no class is rare enough, which repeats nothing.
    """
    frequency = presence.mean(axis=0) if len(presence) else np.zeros(0)
    found = 0.0
    for each in np.unique(frequency[frequency > 0]):
        if image_repeat_factors(presence, float(each)).mean() > longest:
            break
        found = float(each)
    return found


def _of_mean_one(weights: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    occurs = counts > 0
    found = np.ones_like(counts)
    if occurs.any():
        found[occurs] = weights[occurs] / weights[occurs].mean()
    return found
