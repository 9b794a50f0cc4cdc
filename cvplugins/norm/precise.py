"""Running statistics of batch norms, recomputed for the weights as they are now."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cvplugins.distributed import rank, sum_over_ranks, world_size
from cvplugins.randomness import kept_randomness

from .conversion import moves_statistics
from .moments import channel_moments

__all__ = ["PreciseReport", "recompute_statistics"]


@dataclass(frozen=True)
class PreciseReport:
    """What a recomputation found.

    Attributes:
        batches: How many this rank ran.
        drift: Per recomputed layer, how far the old running mean was off at most, in standard deviations.
        unused: Layers that no batch reached; their statistics stay.
    """

    batches: int
    drift: dict[str, float]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        """Return a line for the log."""
        text = f"{len(self.drift)} batch norms from {self.batches} batches"
        if self.drift:
            worst = max(self.drift, key=lambda name: self.drift[name])
            text += f"; the running mean was off by up to {self.drift[worst]:.2g} standard deviations ({worst})"
        return text + (f"; not reached: {', '.join(self.unused)}" if self.unused else "")


class _Moments:
    """Count, mean and sum of squared deviations per channel of everything that a layer was given."""

    def __init__(self, channels: int, like: Tensor) -> None:
        self.dtype = torch.float32 if like.device.type == "mps" else torch.float64  # MPS has no float64
        self.values = torch.zeros(2 * channels + 1, dtype=self.dtype, device=like.device)

    def add(self, input: Tensor) -> None:
        channels = input.shape[1]
        if count := input.numel() // channels:
            mean, var = channel_moments(input)
            new = torch.cat([mean, var * count, mean.new_full((1,), count)]).to(self.dtype)
            self.values = _merge(torch.stack([self.values, new]))


def _merge(rows: Tensor) -> Tensor:
    """Merge moments, one set a row; Chan, Golub and LeVeque, 1983."""
    channels = rows.shape[1] // 2
    means, squares, counts = rows[:, :channels], rows[:, channels:-1], rows[:, -1:]
    count = counts.sum(0)
    mean = (means * counts).sum(0) / count.clamp(min=1)
    return torch.cat([mean, (squares + counts * (means - mean).square()).sum(0), count])


@torch.no_grad()
def recompute_statistics(
    model: nn.Module,
    batches: Iterable[Any],
    num_batches: int,
    forward: Callable[[Any], Any] | None = None,
    group: dist.ProcessGroup | None = None,
) -> PreciseReport:
    """Set the running statistics to mean and variance over some batches, with the weights as they are now.

    While weights move, running averages lag behind. Each layer gets the mean and the unbiased variance of all values
    that it is given, in all batches on all ranks, however the sizes differ; fvcore's ``update_bn_stats`` gives the
    biased variance of one rank. Statistics only: weights, modes, momenta, other buffers and all random generators are
    as before, and after an error the statistics too.

    Reference: Wu and Johnson, Rethinking "Batch" in BatchNorm, 2021, arXiv:2105.07576, section 3.

    Args:
        model: In training mode. Layers that are in evaluation mode or frozen, or were converted to other kinds, stay.
        batches: Training batches. With synchronised layers every rank has to give equally many.
        num_batches: How many to use at most.
        forward: Runs the model on one batch; ``model`` itself if None.
        group: Ranks that put their statistics together; all if None.

    Returns:
        What was recomputed, and how stale it had been.

    Raises:
        ValueError: ``num_batches`` is less than 1, or no batch reached a layer; on all ranks.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(1))
        >>> print(recompute_statistics(model, [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])], 2))
        1 batch norms from 2 batches; the running mean was off by up to 1.5 standard deviations (0)
        >>> model[0].running_mean, model[0].running_var
        (tensor([4.]), tensor([6.6667]))
    """
    if num_batches < 1:
        raise ValueError(f"num_batches is {num_batches}; it must be at least 1")
    layers = {name: layer for name, layer in model.named_modules() if layer.training and moves_statistics(layer)}
    if not layers:
        return PreciseReport(0, {}, ())
    means = {name: layer.get_buffer("running_mean") for name, layer in layers.items()}
    moments = {name: _Moments(len(mean), mean) for name, mean in means.items()}
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    handles = [layer.register_forward_pre_hook(partial(_observe, moments[name])) for name, layer in layers.items()]
    count = 0
    try:
        with kept_randomness():
            for batch in islice(batches, num_batches):
                (forward or model)(batch)
                count += 1
    finally:
        for handle in handles:
            handle.remove()
        for buffer, value in before:
            buffer.copy_(value)
    drift = _set_statistics(layers, _over_ranks([each.values for each in moments.values()], group))
    found = {name: value for name, value in zip(layers, drift, strict=True) if value is not None}
    if not found:
        raise ValueError(f"no batch reached any of {len(layers)} batch norms; give batches of a training loader")
    return PreciseReport(count, found, tuple(name for name in layers if name not in found))


def _observe(moments: _Moments, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    moments.add(inputs[0])


def _over_ranks(moments: list[Tensor], group: dist.ProcessGroup | None) -> list[Tensor]:
    """Merge the moments of all ranks; one collective for all layers."""
    sizes = [len(each) for each in moments]
    device = moments[0].device
    # Every rank fills its own row, so that the sum is an exact gather, which every backend has.
    rows = moments[0].new_zeros(world_size(group), sum(sizes))
    rows[rank(group)] = torch.cat([each.to(device) for each in moments])
    return [_merge(part) for part in torch.split(sum_over_ranks(rows, group), sizes, dim=1)]


def _set_statistics(layers: dict[str, nn.Module], moments: list[Tensor]) -> list[float | None]:
    """Set the statistics of what was reached and return, per layer, how far its mean was off."""
    drifts = []
    for layer, values in zip(layers.values(), moments, strict=True):
        running_mean, running_var = layer.get_buffer("running_mean"), layer.get_buffer("running_var")
        mean, squares = values[:-1].to(running_mean.device).chunk(2)
        count = values[-1].to(mean)
        var = squares / (count - 1).clamp(min=1)
        off = (running_mean.to(mean) - mean).abs() / (var + float(layer.eps)).sqrt()  # type: ignore[arg-type]
        drifts.append(torch.where(count > 0, off.max(), -1.0).to(moments[0].device))
        running_mean.copy_(torch.where(count > 0, mean, running_mean.to(mean)))
        running_var.copy_(torch.where(count > 0, var, running_var.to(var)))
    return [None if drift < 0 else drift for drift in torch.stack(drifts).tolist()]
