"""Generated images: Fréchet inception distance and inception score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .frechet import FeatureStatistics, FrechetDistance, feature_statistics, frechet_distance
from .matching import Floats
from .undefined import defined

__all__ = ["GenerationMetric", "GenerationResult", "ImageFeatures", "inception_score"]


@dataclass(frozen=True)
class ImageFeatures:
    """What a :class:`GenerationMetric` keeps of an image.

    Attributes:
        image_id: Number or name.
        real: Whether it is a real image, or one that was generated.
        features: What a network saw in it, ``(D,)``; None if unknown.
        probabilities: Of the network's classes, ``(K,)``; None if unknown.
    """

    image_id: int | str
    real: bool
    features: NDArray[Any] | None
    probabilities: NDArray[Any] | None


@dataclass(frozen=True)
class GenerationResult:
    """The measures of :class:`GenerationMetric`; NaN where undefined.

    Attributes:
        num_generated: Generated images.
        num_real: Real images; 0 where only their statistics are known.
        frechet: Fréchet inception distance: 0 or more, lower is better.
        split_scores: Inception score of each split, at least 1, higher is better, ``(S,)``.
        class_shares: Mean probability of each class over the generated images, ``(K,)``.
    """

    num_generated: int
    num_real: int
    frechet: FrechetDistance
    split_scores: Floats
    class_shares: Floats

    def numbers(self) -> dict[str, float]:
        """Return ``FID``, and mean and standard deviation of the inception score; NaN where undefined."""
        scores = self.split_scores
        return {"FID": self.frechet.total, "IS": float(scores.mean()), "IS_std": float(scores.std())}

    def scalars(self) -> dict[str, float]:
        """Return the numbers without those that are undefined."""
        return defined(self.numbers())

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data that JSON can hold; undefined numbers are None."""
        parts = {"FID_mean": self.frechet.mean, "FID_covariance": self.frechet.covariance}
        return {
            "num_generated": self.num_generated,
            "num_real": self.num_real,
            "mean": self.scalars(),
            **{name: None if math.isnan(value) else value for name, value in parts.items()},
            "IS_per_split": [None if math.isnan(score) else score for score in self.split_scores.tolist()],
            "class_shares": self.class_shares.tolist(),
        }


class GenerationMetric:
    """Fréchet inception distance (FID) and inception score (IS) of features and probabilities that are given.

    Both depend on the network; :class:`cvplugins.metrics.InceptionFeatures` is one. FID also depends on the number of
    images, of which papers take 50,000: fewer give a higher one. The score is the mean over ``splits`` parts of the
    generated images in the order of their ids, numbers before names, divided as in the paper's code; where the order
    follows the classes, parts hold few of them and score lower. It is undefined for fewer images than splits.

    The state is the features of every image (400 MB for 50,000 images of 2048 numbers in float32), since sums of
    floating point depend on their order; sorted by id first, the result is the same to the last bit, whatever the
    order and split of the images. Features of real images can be replaced by statistics of a file.

    Args:
        splits: Parts of which the inception score is the mean.
        real: Mean and covariance of the real images' features, in the place of real images.

    Raises:
        ValueError: An argument is none of what is accepted.

    Example:
        >>> metric = GenerationMetric(splits=1)
        >>> metric.update(["a", "b"], features=[[0.0], [2.0]], probabilities=[[1.0, 0.0], [0.0, 1.0]])
        >>> metric.update(["c", "d"], features=[[3.0], [5.0]], real=True)
        >>> metric.compute().scalars()
        {'FID': 9.0, 'IS': 2.0, 'IS_std': 0.0}
    """

    def __init__(self, *, splits: int = 10, real: FeatureStatistics | None = None) -> None:
        if splits < 1:
            raise ValueError(f"splits is {splits}; the inception score needs at least 1, papers take 10")
        self.splits, self.real = splits, real
        self.images: dict[tuple[bool, int | str], ImageFeatures] = {}

    def update(
        self,
        image_ids: Sequence[int | str],
        features: Any = None,
        probabilities: Any = None,
        *,
        real: bool = False,
    ) -> None:
        """Add images.

        Args:
            image_ids: Numbers or names; each counts once among the real and once among the generated images.
            features: ``(N, D)``, floating point; an array, or a tensor on any device. FID leaves out images without.
            probabilities: Of the classes, ``(N, K)``, each row with a sum of 1. The score leaves out images without.
            real: Whether these are real images, or generated ones.

        Raises:
            ValueError: Shapes do not fit, a number is not finite, a row is no distribution, or an image was added
                before; the message names the image.
        """
        columns = [self._rows(image_ids, name, values) for name, values in _named(features, probabilities)]
        for image in (ImageFeatures(*row) for row in zip(image_ids, [real] * len(image_ids), *columns, strict=True)):
            self.add(image)

    def add(self, image: ImageFeatures) -> None:
        """Add one image; errors as for :meth:`update`."""
        kind = "real" if image.real else "generated"
        if (image.real, image.image_id) in self.images:
            raise ValueError(f"{kind} image {image.image_id} was added twice")
        if image.real and self.real is not None:
            raise ValueError(f"real image {image.image_id}: statistics of the real images were given; leave one out")
        for name, values in _named(image.features, image.probabilities):
            if values is not None and not np.isfinite(values).all():
                raise ValueError(f"{kind} image {image.image_id}: {name} hold a number that is not finite")
        shares = image.probabilities
        if shares is not None and (shares.min() < 0 or abs(float(shares.sum(dtype=np.float64)) - 1) > 1e-2):
            raise ValueError(
                f"{kind} image {image.image_id}: probabilities have to be 0 or more with a sum of 1, not "
                f"{shares.sum():.4g}; give softmax of the logits"
            )
        self.images[image.real, image.image_id] = image

    def merge(self, other: GenerationMetric) -> None:
        """Add the images of another part of the data set.

        Raises:
            ValueError: Options differ, or an image is in both parts.
        """
        if other.splits != self.splits or (other.real is None) != (self.real is None):
            raise ValueError("cannot merge generation metrics that differ in splits or in whether statistics are given")
        for image in other.images.values():
            self.add(image)

    def statistics(self, real: bool = True) -> FeatureStatistics:
        """Return mean and covariance of the real or the generated images, to be saved for later.

        Raises:
            ValueError: There are fewer than two images.
        """
        features = self._joined("features", real)
        if len(features) < 2:
            raise ValueError(f"a covariance needs the features of two images or more, not of {len(features)}")
        return feature_statistics(features)

    def compute(self) -> GenerationResult:
        """Return the measures over all images so far."""
        probabilities = self._joined("probabilities", False).astype(np.float64)
        return GenerationResult(
            num_generated=sum(not real for real, _ in self.images),
            num_real=sum(real for real, _ in self.images),
            frechet=frechet_distance(
                self._joined("features", False), self._joined("features", True) if self.real is None else self.real
            ),
            split_scores=inception_score(probabilities, self.splits),
            class_shares=probabilities.mean(axis=0) if len(probabilities) else np.zeros(0),
        )

    def _joined(self, name: str, real: bool) -> NDArray[Any]:
        """Return the features or probabilities of some images, in the order of their ids."""
        images = [image for image in self.images.values() if image.real is real and getattr(image, name) is not None]
        images.sort(key=lambda image: (isinstance(image.image_id, str), image.image_id))
        rows = [getattr(image, name) for image in images]
        for image, row in zip(images, rows, strict=True):
            if row.shape != rows[0].shape:
                raise ValueError(
                    f"image {image.image_id} has {len(row)} {name}, image {images[0].image_id} {len(rows[0])}"
                )
        return np.stack(rows) if rows else np.zeros((0, 0))

    @staticmethod
    def _rows(image_ids: Sequence[int | str], name: str, values: Any) -> Sequence[NDArray[Any] | None]:
        if values is None:
            return [None] * len(image_ids)
        if isinstance(values, Tensor):
            values = values.detach().cpu()
            values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # NumPy has no bfloat16
        array = np.asarray(values)
        if array.ndim != 2 or len(array) != len(image_ids):
            raise ValueError(f"{name} have shape {array.shape}; expected a row for each of {len(image_ids)} images")
        array = array.astype(np.float64 if array.dtype == np.float64 else np.float32)  # a copy: networks reuse memory
        return list(array)


def inception_score(probabilities: NDArray[Any], splits: int = 10) -> Floats:
    """Exponential of the mean divergence of each row from the mean of the rows, for each of ``splits`` parts.

    Reference: Salimans et al., Improved Techniques for Training GANs, NeurIPS 2016, arXiv:1606.03498.

    Args:
        probabilities: ``(N, K)``, float64; the parts are of consecutive rows.
        splits: Number of parts, S.

    Returns:
        From 1 to K each, ``(S,)``; NaN for fewer rows than splits.

    Example:
        >>> inception_score(np.eye(4), splits=1)
        array([4.])
    """
    from scipy.special import rel_entr  # here, because it takes long to import

    count = len(probabilities)
    if count < splits:
        return np.full(splits, np.nan)
    parts = [probabilities[count * part // splits : count * (part + 1) // splits] for part in range(splits)]
    return np.array([np.exp(rel_entr(part, part.mean(axis=0)).sum(axis=1).mean()) for part in parts])


def _named(features: Any, probabilities: Any) -> tuple[tuple[str, Any], tuple[str, Any]]:
    return ("features", features), ("probabilities", probabilities)
