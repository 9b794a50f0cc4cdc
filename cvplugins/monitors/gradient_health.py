"""Gradient health: norms per block of layers, and which gradients are not finite."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["GradientHealth", "GradientReport"]


@dataclass(frozen=True)
class GradientReport:
    """What one observation found.

    Attributes:
        iteration: When it was made.
        total_norm: Euclidean norm of all gradients; NaN or infinite if one is not finite.
        block_norms: The same per block, in the order of the model.
        nonfinite: Parameters whose gradient holds NaN or infinity.
        unused: Parameters that require a gradient but have none.
    """

    iteration: int
    total_norm: float
    block_norms: dict[str, float]
    nonfinite: tuple[str, ...]
    unused: tuple[str, ...]


class GradientHealth:
    """Norms and non-finite values of a model's gradients, for one device synchronisation an observation.

    A finite norm proves that a gradient is finite, so that only a norm that is not needs a second look. Norms
    of half precision gradients are accumulated in float32. Sparse gradients and failures synchronise more.

    Args:
        depth: Parts of a module's name that make a block, at least 1: 2 gives ``backbone.layer1``.
        interval: Observe when so many iterations have passed since the last observation, at least 1. Calls of
            the same iteration, for different parts of a model, are all observed.

    Attributes:
        first_nonfinite: Iteration at which each parameter's gradient was first seen not to be finite.

    Raises:
        ValueError: ``depth`` or ``interval`` is less than 1.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 1))
        >>> model[0].weight.grad = torch.tensor([[3.0, 4.0]])
        >>> GradientHealth(depth=1).observe(model, iteration=0)
        GradientReport(iteration=0, total_norm=5.0, block_norms={'0': 5.0}, nonfinite=(), unused=('1.weight', '1.bias'))
    """

    def __init__(self, depth: int = 2, interval: int = 1) -> None:
        for name, value in (("depth", depth), ("interval", interval)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        self.depth = depth
        self.interval = interval
        self.first_nonfinite: dict[str, int] = {}
        self._last: int | None = None  # iteration of the last observation

    @torch.no_grad()
    def is_due(self, iteration: int) -> bool:
        """Return whether :meth:`observe` would look at this iteration."""
        return self._last is None or not 0 < iteration - self._last < self.interval

    def observe(
        self, model: nn.Module | Iterable[tuple[str, Tensor]], iteration: int, scale: float = 1.0
    ) -> GradientReport | None:
        """Look at the gradients as they are now.

        Args:
            model: A module, or its named parameters. The prefix that DistributedDataParallel adds is dropped.
            iteration: The current step.
            scale: Loss scale that the gradients are still multiplied by.

        Returns:
            A report, or None between intervals.
        """
        if not self.is_due(iteration):
            return None
        self._last = iteration
        gradients: dict[str, Tensor] = {}
        unused = []
        for name, parameter in model.named_parameters() if isinstance(model, nn.Module) else model:
            name = name.removeprefix("module.")
            gradient = parameter.grad
            if gradient is not None:
                gradients[name] = gradient.coalesce().values() if gradient.is_sparse else gradient
            elif parameter.requires_grad:
                unused.append(name)
        nonfinite = []
        blocks = defaultdict(list)
        for name, norm in zip(gradients, _norms(list(gradients.values())), strict=True):
            if not math.isfinite(norm):
                norm = _norm_without_overflow(gradients[name])
                if not math.isfinite(norm):
                    nonfinite.append(name)
                    self.first_nonfinite.setdefault(name, iteration)
            blocks[self._block(name)].append(norm / scale)
        block_norms = {block: math.hypot(*norms) for block, norms in blocks.items()}
        total_norm = math.hypot(*block_norms.values())
        return GradientReport(iteration, total_norm, block_norms, tuple(nonfinite), tuple(unused))

    def scalars(self, report: GradientReport) -> dict[str, float]:
        """Return the norms under the names that a logger shows."""
        return {
            "gradient/norm": report.total_norm,
            **{f"gradient/norm/{block}": norm for block, norm in report.block_norms.items()},
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run has to know."""
        return {"first_nonfinite": dict(self.first_nonfinite), "last": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.first_nonfinite, self._last = dict(state["first_nonfinite"]), state["last"]

    def _block(self, name: str) -> str:
        """Return the block of a parameter; one of the model itself is its own block."""
        return ".".join(name.split(".")[:-1][: self.depth]) or name


def _norms(gradients: list[Tensor]) -> list[float]:
    """Return the Euclidean norm of each gradient, after one transfer from each device."""
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = defaultdict(list)
    for index, gradient in enumerate(gradients):
        groups[gradient.device, gradient.dtype].append(index)
    result = [0.0] * len(gradients)
    on_device: dict[torch.device, list[tuple[list[int], Tensor]]] = defaultdict(list)
    for (device, dtype), indices in groups.items():
        members = [gradients[index] for index in indices]
        on_device[device].append((indices, torch.stack(_group_norms(members, dtype))))
    for parts in on_device.values():
        order = [index for indices, _ in parts for index in indices]
        for index, norm in zip(order, torch.cat([norms for _, norms in parts]).tolist(), strict=True):
            result[index] = norm
    return result


def _group_norms(gradients: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    if dtype in (torch.float16, torch.bfloat16):
        # torch._foreach_norm has no dtype in torch 2.1, and norms in float16 overflow above 65504.
        return [torch.linalg.vector_norm(gradient, dtype=torch.float32) for gradient in gradients]
    return list(torch._foreach_norm(gradients, 2))


def _norm_without_overflow(gradient: Tensor) -> float:
    """Return the norm without squaring large values; NaN exactly if the gradient is not finite."""
    gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    largest = gradient.abs().max()
    return float(largest) * float(torch.linalg.vector_norm(gradient / largest))
