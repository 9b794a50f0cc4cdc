"""The loss on a data set: the mean over images of the loss of each image alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["MeanLosses", "mean_losses"]


@dataclass(frozen=True)
class MeanLosses:
    """Losses of a data set.

    Attributes:
        losses: By name; NaN where one of an image is not finite.
        nonfinite: The images of which a loss is not finite, by the loss's name.
    """

    losses: dict[str, float]
    nonfinite: dict[str, tuple[str, ...]]

    def warnings(self) -> Iterator[str]:
        """Yield a line for each loss that is not finite."""
        for name, images in self.nonfinite.items():
            shown = ", ".join(images[:5]) + (" ..." if len(images) > 5 else "")
            yield f"{name} is not finite in {len(images)} images: {shown}"


def mean_losses(results: Sequence[tuple[str, Mapping[str, float]]]) -> MeanLosses:
    """Return the mean of each loss over the images, and of anything else over the images that have it.

    Args:
        results: Name and numbers of each image. Without objects some heads leave a loss out: what has ``loss`` in its
            name counts as 0 then, so that the parts add up to the whole.

    Example:
        >>> mean_losses([("a.jpg", {"loss": 1.0, "loss_box": 0.5, "acc": 0.9}), ("b.jpg", {"loss": 2.0})]).losses
        {'loss': 1.5, 'loss_box': 0.25, 'acc': 0.9}
        >>> mean_losses([]).losses
        {'loss': nan}
    """
    if not results:
        return MeanLosses({"loss": math.nan}, {})
    names = list(dict.fromkeys(name for _, losses in results for name in losses))
    bad = {name: tuple(image for image, each in results if not math.isfinite(each.get(name, 0.0))) for name in names}
    means = {name: _mean(name, [losses for _, losses in results]) for name in names}
    return MeanLosses(means, {name: images for name, images in bad.items() if images})


def _mean(name: str, losses: Sequence[Mapping[str, float]]) -> float:
    values = [each.get(name, 0.0) for each in losses if name in each or "loss" in name]
    # Exact sums do not depend on the order of the images.
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.nan
