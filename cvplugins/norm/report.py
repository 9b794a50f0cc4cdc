"""What the batch norms of a model have learned: scale, shift, statistics, dead and exploding channels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .conversion import is_batch_norm
from .summary import align

__all__ = ["BatchNormReport", "BatchNormSummary", "bn_report"]


@dataclass(frozen=True)
class BatchNormSummary:
    """One layer; each range is the smallest and the largest value over the channels.

    Attributes:
        name: Its name in the model.
        channels: Their number.
        gamma: Range of the weight; ``(1, 1)`` without one.
        beta: Range of the bias; ``(0, 0)`` without one.
        running_mean: Range of the running mean.
        running_var: Range of the running variance.
        dead: Indices of the channels whose output hardly depends on the input.
        exploding: Indices of the channels that are not finite or very large.
    """

    name: str
    channels: int
    gamma: tuple[float, float]
    beta: tuple[float, float]
    running_mean: tuple[float, float]
    running_var: tuple[float, float]
    dead: tuple[int, ...]
    exploding: tuple[int, ...]


@dataclass(frozen=True)
class BatchNormReport:
    """All layers of a model that keep running statistics."""

    layers: tuple[BatchNormSummary, ...]

    @property
    def dead(self) -> dict[str, tuple[int, ...]]:
        """Channels whose output hardly depends on the input, per layer that has some."""
        return {layer.name: layer.dead for layer in self.layers if layer.dead}

    @property
    def exploding(self) -> dict[str, tuple[int, ...]]:
        """Channels that are not finite or very large, per layer that has some."""
        return {layer.name: layer.exploding for layer in self.layers if layer.exploding}

    def table(self) -> str:
        """Return one line per layer."""
        head = ("layer", "channels", "gamma", "beta", "running mean", "running variance", "dead", "exploding")
        return align([head, *map(_row, self.layers)])


def _row(layer: BatchNormSummary) -> tuple[str, ...]:
    ranges = (layer.gamma, layer.beta, layer.running_mean, layer.running_var)
    spans = (f"{low:.3g} .. {high:.3g}" for low, high in ranges)
    counts = (str(len(channels)) if channels else "" for channels in (layer.dead, layer.exploding))
    return (layer.name or "(model)", str(layer.channels), *spans, *counts)


@torch.no_grad()
def bn_report(model: nn.Module, *, dead_below: float = 1e-3, exploding_above: float = 1e3) -> BatchNormReport:
    """Look at every batch norm that keeps running statistics.

    Args:
        model: Any module.
        dead_below: A channel is dead if the standard deviation of its output is below this, by the running variance:
            ``|gamma| sqrt(var / (var + eps))``. It is 1 for a fresh layer. Layers whose gamma starts at 0 (the last of
            each residual block with ``zero_init_residual``) are dead until they have learned.
        exploding_above: A channel explodes if the magnitude of gamma, beta, running mean or the running standard
            deviation is above this or not finite.

    Returns:
        Ranges and channels per layer.

    Raises:
        ValueError: A limit is negative.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm2d(3))
        >>> _ = nn.init.constant_(model[0].weight[1], 0.0)
        >>> print(bn_report(model).table())
        layer  channels  gamma   beta    running mean  running variance  dead  exploding
        0      3         0 .. 1  0 .. 0  0 .. 0        1 .. 1            1
    """
    for name, value in (("dead_below", dead_below), ("exploding_above", exploding_above)):
        if not value >= 0:
            raise ValueError(f"{name} is {value}; it must be at least 0")
    return BatchNormReport(tuple(_summaries(model, dead_below, exploding_above)))


def _summaries(model: nn.Module, dead_below: float, exploding_above: float) -> Iterable[BatchNormSummary]:
    for name, layer in model.named_modules():
        if not is_batch_norm(layer) or getattr(layer, "running_mean", None) is None:
            continue
        mean, var = layer.get_buffer("running_mean").float(), layer.get_buffer("running_var").float()
        gamma = torch.ones_like(mean) if layer.weight is None else _tensor(layer.weight)
        beta = torch.zeros_like(mean) if layer.bias is None else _tensor(layer.bias)
        rows = torch.stack([gamma, beta, mean, var]).cpu()  # one transfer a layer
        gamma, beta, mean, var = rows
        output_std = gamma.abs() * (var / (var + layer.eps)).sqrt()
        sizes = torch.stack([gamma.abs(), beta.abs(), mean.abs(), var.sqrt()])
        low, high = rows.min(1).values.tolist(), rows.max(1).values.tolist()
        ranges = list(zip(low, high, strict=True))
        yield BatchNormSummary(
            name,
            channels=len(mean),
            gamma=ranges[0],
            beta=ranges[1],
            running_mean=ranges[2],
            running_var=ranges[3],
            dead=_indices(output_std < dead_below),
            exploding=_indices((~(sizes <= exploding_above)).any(0)),  # NaN is not <=
        )


def _tensor(value: Tensor | nn.Module) -> Tensor:
    assert isinstance(value, Tensor)
    return value.float()


def _indices(where: Tensor) -> tuple[int, ...]:
    return tuple(where.nonzero().flatten().tolist())
