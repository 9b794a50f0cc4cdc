"""The Fréchet distance of two normal distributions, which FID is made of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvplugins.errors import UserError, first_line
from cvplugins.files import write_whole

from .matching import Floats

__all__ = ["FeatureStatistics", "FrechetDistance", "feature_statistics", "frechet_distance"]

ROWS_AT_ONCE = 2048


@dataclass(frozen=True)
class FrechetDistance:
    """The squared distance and the two parts of which it is the sum; NaN if undefined.

    Attributes:
        mean: Squared distance of the means.
        covariance: Trace of ``A + B - 2 sqrt(A B)`` for the covariances.
    """

    mean: float
    covariance: float

    @property
    def total(self) -> float:
        """The squared Fréchet distance, at least 0."""
        return self.mean + self.covariance


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean and covariance of features, of which files are exchanged.

    Attributes:
        mean: float64, ``(D,)``.
        covariance: Divided by the number of images less one; float64, ``(D, D)``.

    Raises:
        ValueError: Shapes do not fit each other, or a number is not finite.
    """

    mean: Floats
    covariance: Floats

    def __post_init__(self) -> None:
        size = np.shape(self.mean)
        if len(size) != 1 or np.shape(self.covariance) != size * 2:
            raise ValueError(f"a mean of shape {size} does not fit a covariance of shape {np.shape(self.covariance)}")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.covariance).all()):
            raise ValueError("mean or covariance hold a number that is not finite")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a NumPy archive of ``mu`` and ``sigma``, as pytorch-fid does."""
        with write_whole(path) as temporary, temporary.open("wb") as file:
            np.savez(file, mu=self.mean, sigma=self.covariance)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FeatureStatistics:
        """Read what :meth:`save` or pytorch-fid wrote, without running code from it.

        Raises:
            UserError: There is no such file, or it does not hold ``mu`` and ``sigma``.
        """
        if not os.path.isfile(path):
            raise UserError(f"statistics {path}: there is no such file; give an .npz file with mu and sigma")
        try:
            with np.load(path, allow_pickle=False) as archive:
                return cls(np.asarray(archive["mu"], np.float64), np.asarray(archive["sigma"], np.float64))
        except Exception as error:  # NumPy raises many kinds for what is no archive
            raise UserError(
                f"statistics {path} cannot be read: {first_line(error)}; give an .npz file with mu and sigma, as "
                "FeatureStatistics.save or pytorch-fid writes it"
            ) from error

    def factor(self) -> Floats:
        """Return a matrix whose product with itself, transposed first, is the covariance, ``(D, D)``."""
        import scipy.linalg  # here, because it takes long to import

        values, vectors = scipy.linalg.eigh(self.covariance)
        factor: Floats = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T  # rounding may leave less than 0
        return factor


def feature_statistics(features: Sequence[NDArray[Any]] | NDArray[Any]) -> FeatureStatistics:
    """Return mean and covariance of ``(N, D)``, summed in float64 in the order of the rows, N at least 2.

    >>> feature_statistics(np.array([[0.0, 2.0], [2.0, 2.0]])).covariance.tolist()
    [[2.0, 0.0], [0.0, 0.0]]
    """
    features = np.asarray(features)
    mean = features.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((len(mean), len(mean)))
    for start in range(0, len(features), ROWS_AT_ONCE):  # not all of them in float64 at once
        part = features[start : start + ROWS_AT_ONCE] - mean
        covariance += part.T @ part
    return FeatureStatistics(mean, covariance / (len(features) - 1))


def frechet_distance(one: FeatureStatistics | NDArray[Any], other: FeatureStatistics | NDArray[Any]) -> FrechetDistance:
    """Squared Fréchet distance of two sets of features, taken as normally distributed.

    ``|m1 - m2|**2 + trace(A + B - 2 sqrt(A B))``. With factors ``A = F'F`` and ``B = G'G``, the trace of the root is
    the sum of the singular values of ``F G'``: no root of a matrix that may be singular or have no real one, and of
    fewer images than features the centred features are a factor themselves. Reference: Dowson and Landau, The Fréchet
    Distance between Multivariate Normal Distributions, 1982; Heusel et al., NeurIPS 2017, arXiv:1706.08500.

    Args:
        one: Features ``(N, D)``, or their statistics.
        other: The same of the other set.

    Returns:
        NaN for fewer than two rows, which have no covariance.

    Raises:
        ValueError: The numbers of features differ.

    Example:
        >>> frechet_distance(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]])).total
        9.0
    """
    import scipy.linalg  # here, because it takes long to import

    if any(not isinstance(each, FeatureStatistics) and len(each) < 2 for each in (one, other)):
        return FrechetDistance(float("nan"), float("nan"))
    (mean, factor), (other_mean, other_factor) = _mean_and_factor(one), _mean_and_factor(other)
    if mean.shape != other_mean.shape:
        raise ValueError(f"{len(mean)} features of one set do not fit {len(other_mean)} of the other")
    root = scipy.linalg.svdvals(factor @ other_factor.T).sum()
    traces = np.vdot(factor, factor) + np.vdot(other_factor, other_factor)
    difference = mean - other_mean
    # The trace is never negative, but a difference of equal numbers may be.
    return FrechetDistance(float(difference @ difference), max(0.0, float(traces - 2 * root)))


def _mean_and_factor(features: FeatureStatistics | NDArray[Any]) -> tuple[Floats, Floats]:
    if isinstance(features, FeatureStatistics):
        return features.mean, features.factor()
    if len(features) > features.shape[1]:
        statistics = feature_statistics(features)
        return statistics.mean, statistics.factor()
    mean = features.mean(axis=0, dtype=np.float64)
    return mean, (features - mean) / np.sqrt(len(features) - 1)
