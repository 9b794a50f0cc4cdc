"""The losses that a model returns in training, by name, also where it raises because something is not finite."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from cvplugins.errors import first_line

__all__ = ["forward_without_raising", "named_losses", "summed_losses"]

logger = logging.getLogger("detectron2.cvplugins")  # below the one that Detectron2's setup_logger shows


def forward_without_raising(model: nn.Module, names: Iterable[str] = ()) -> Callable[..., Any]:
    """Return the model's ``forward`` with NaN for its losses where it raises ``FloatingPointError`` in training.

    As Detectron2's RPN does when proposals are not finite (detectron2/modeling/proposal_generator/proposal_utils.py),
    on one rank alone. The losses have a gradient, 0, for every parameter, for which DistributedDataParallel waits; and
    the names of those before, because Detectron2 logs the mean over all ranks of each.

    Args:
        model: Not wrapped; not changed.
        names: Of the losses, until there were any.
    """
    forward, known = model.forward, tuple(names)

    @wraps(forward)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal known
        try:
            losses = forward(*args, **kwargs)
        except FloatingPointError as error:
            if not (model.training and torch.is_grad_enabled()):
                raise
            logger.warning("the model's losses are taken for NaN, because it raised: %s", first_line(error))
            trained = [value for value in model.parameters() if value.requires_grad]
            zero = torch.stack([(value * 0).nan_to_num().sum() for value in trained]).sum()
            return {name: zero + torch.nan for name in known or ["total_loss"]}
        if model.training and isinstance(losses, Mapping):
            known = tuple(losses)
        return losses

    return wrapped


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
