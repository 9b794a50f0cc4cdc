"""The losses that a model returns in training, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

__all__ = ["named_losses", "summed_losses"]


def named_losses(losses: Any) -> Mapping[str, Tensor]:
    """Return the losses by name: a model may return a single one."""
    return losses if isinstance(losses, Mapping) else {"total_loss": losses}


def summed_losses(outputs: Iterable[Any]) -> dict[str, Tensor]:
    """Return the sums of the losses of several batches."""
    total: dict[str, Tensor] = {}
    for output in outputs:
        for name, value in named_losses(output).items():
            total[name] = total.get(name, 0) + value
    return total
