"""The loss on a data set: the mean over images of the loss of each image alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from cvplugins.isolation import alone, training_paths
from cvplugins.model_numbers import kept_numbers
from cvplugins.randomness import fixed_randomness

from .metric_names import MetricNames

__all__ = ["VALIDATION_LOSSES", "MeanLosses", "mean_losses", "to_numbers", "undisturbed"]

VALIDATION_LOSSES = MetricNames(("val/loss",), ("val/",))  # the sum, and the parts by the model's own names


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
            yield f"validation loss: {name} is not finite in {len(images)} images: {shown}"


def mean_losses(results: Sequence[tuple[str, Mapping[str, float]]]) -> MeanLosses:
    """Return the mean of each loss over the images, and of anything else over the images that have it.

    So the losses depend neither on the batch size nor on the number of ranks. One that is not finite stays in the mean.
    ``ValidationLoss`` gives them to each evaluation as ``val/loss`` and, under the names of the training log,
    ``val/loss_cls`` and so on, at the cost of one more forward pass an image.

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


@contextmanager
def undisturbed(model: nn.Module, device: torch.device, foreign: tuple[type, ...] = ()) -> Iterator[Callable[..., Any]]:
    """Let a model compute the losses of an image alone, and leave all as it was.

    The model and its heads take the path of training, while layers (batch norm, dropout) are in evaluation mode. What
    the losses draw (anchors, points, noise) is the same each time. Parameters, buffers, numbers that a head counts in
    and random generators stay as they were. No other rank is asked.

    Args:
        model: The model, unwrapped: DistributedDataParallel may exchange buffers.
        device: Where it computes.
        foreign: As :class:`cvplugins.model_numbers.ModelNumbers` takes it.

    Yields:
        What to call in the place of the model.

    Example:
        >>> model = nn.BatchNorm1d(1)
        >>> with undisturbed(model, torch.device("cpu")) as call: call(torch.ones(1, 1)).item()
        0.9999949932098389
        >>> model.training, model.num_batches_tracked.item()
        (True, 0)
    """
    # Copies, because some losses count in theirs (Seesaw).
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.no_grad(), training_paths(model), kept_numbers(model, foreign), fixed_randomness(device), alone():
        yield lambda *arguments, **options: functional_call(model, buffers, arguments, options)


def to_numbers(losses: Mapping[str, Tensor], device: torch.device) -> dict[str, float]:
    """Return losses as numbers, by one transfer for all.

    >>> to_numbers({"loss_cls": torch.tensor(0.5), "acc": torch.tensor(75)}, torch.device("cpu"))
    {'loss_cls': 0.5, 'acc': 75.0}
    """
    numbers = torch.stack([value.detach().double().to(device) for value in losses.values()]).tolist()
    return dict(zip(losses, numbers, strict=True))
