"""Gradients that lie between two steps of the optimizer: with accumulation, a checkpoint may be written there."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from mmengine.model import is_model_wrapper
from torch import Tensor

from cvplugins.distributed import is_distributed, world_size

from .monitor_hook import optim_wrappers

__all__ = ["accumulated_gradients", "put_gradients"]


def accumulated_gradients(runner) -> dict[str, Tensor]:
    """Return copies of the gradients that the next step will add to, on the CPU; every rank has to call this.

    Nothing where the optimizer has just made its step, which mmengine does after every ``accumulative_counts``
    iterations. Each rank has a sum of its own, of which the step takes the mean: the mean is what is returned.
    """
    wrappers = optim_wrappers(runner).values()
    if all(each._inner_count % each._accumulative_counts == 0 for each in wrappers):
        return {}
    found = {}
    for name, parameter in _model(runner).named_parameters():
        if parameter.grad is None:
            continue
        gradient = parameter.grad.detach().clone()
        if is_distributed():
            torch.distributed.all_reduce(gradient)
            gradient /= world_size()
        found[name] = gradient.cpu()
    return found


def put_gradients(runner, gradients: Mapping[str, Tensor]) -> None:
    """Give the parameters the gradients of a checkpoint."""
    parameters = dict(_model(runner).named_parameters())
    for name, gradient in gradients.items():
        if name in parameters:
            parameters[name].grad = gradient.to(parameters[name].device, copy=True)


def _model(runner) -> torch.nn.Module:
    model: torch.nn.Module = runner.model.module if is_model_wrapper(runner.model) else runner.model
    return model
