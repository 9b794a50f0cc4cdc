"""Statistics of a step that cost several reads of weights and gradients, for every so many iterations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from .device_norms import norms_on_device, read_numbers

__all__ = ["ActivationDetails", "StepDetails"]

Numbers = dict[str, dict[str, float]]


class StepDetails:
    """Zeros of the gradients before a step, weights before it, and what it changed.

    Holds a copy of the weights from :meth:`before_step` to :meth:`after_step`, and reads the device once, in the
    latter.

    Example:
        >>> weight = nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> weight.grad = torch.tensor([0.0, 5.0])
        >>> details = StepDetails({"weight": weight})
        >>> torch.optim.SGD([weight], lr=0.1).step()
        >>> details.after_step()
        {'weight': {'size': 2.0, 'zeros': 1.0, 'weight': 5.0, 'update': 0.5}}
    """

    @torch.no_grad()
    def __init__(self, parameters: Mapping[str, nn.Parameter | Tensor]) -> None:
        """Look at the parameters with a gradient that is not sparse, just before the step."""
        self._parameters = {
            name: value for name, value in parameters.items() if value.grad is not None and not value.grad.is_sparse
        }
        values = list(self._parameters.values())
        gradients = [value.grad for value in values if value.grad is not None]
        self._nonzero = [gradient.count_nonzero() for gradient in gradients]
        self._weights = norms_on_device([value.detach() for value in values])
        self._before = [value.detach().clone() for value in values]

    @torch.no_grad()
    def after_step(self) -> Numbers:
        """Return for each parameter its size, zeros of its gradient, and the norms of its weights and its update."""
        values = list(self._parameters.values())
        for before, value in zip(self._before, values, strict=True):
            before.sub_(value.detach())
        updates = norms_on_device(self._before)
        self._before = []
        numbers = read_numbers([*self._nonzero, *self._weights, *updates])
        count = len(values)
        return {
            name: {
                "size": float(value.numel()),
                "zeros": value.numel() - numbers[index],
                "weight": numbers[count + index],
                "update": numbers[2 * count + index],
            }
            for index, (name, value) in enumerate(self._parameters.items())
        }


class ActivationDetails:
    """Mean, deviation, share of zeros and share of dead units of what chosen modules put out.

    A unit is a channel of a map, or a feature of a vector or token; it is dead if it is 0 in the whole batch. What a
    module puts out in several calls is averaged.

    Args:
        model: The model.
        patterns: Names of modules, ``*`` and ``?`` stand for any part.

    Raises:
        ValueError: No module has such a name.

    Example:
        >>> model = nn.Sequential(nn.ReLU())
        >>> activations = ActivationDetails(model, ["0"])
        >>> _ = model(torch.tensor([[-1.0, 2.0], [-1.0, 4.0]]))
        >>> found = activations.read()["0"]
        >>> found["mean"], found["zeros"], found["dead"]
        (1.5, 0.5, 0.5)
        >>> activations.close()
    """

    def __init__(self, model: nn.Module, patterns: Sequence[str]) -> None:
        modules = {name.removeprefix("module."): module for name, module in model.named_modules()}
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in modules):
                some = ", ".join(list(modules)[1:6])
                raise ValueError(f"activations: no module is named {pattern!r}; there are {some}, ...")
        chosen = [name for name in modules if any(fnmatchcase(name, pattern) for pattern in patterns)]
        self._seen: dict[str, list[Tensor]] = {}
        self._handles = [modules[name].register_forward_hook(self._watch(name)) for name in chosen]

    def read(self) -> Numbers:
        """Return the statistics of each module that was called, in one read of the device, and forget them."""
        flat = [value for calls in self._seen.values() for value in torch.stack(calls).mean(0)]
        numbers = read_numbers(flat)
        names = ("mean", "std", "zeros", "dead")
        found = {
            name: dict(zip(names, numbers[4 * index : 4 * index + 4], strict=True))
            for index, name in enumerate(self._seen)
        }
        self._seen = {}
        return found

    def close(self) -> None:
        """Take the hooks off the modules."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _watch(self, name: str) -> Any:
        def watch(module: nn.Module, inputs: Any, output: Any) -> None:
            tensor = _first_tensor(output)
            # Validation in between is not what is asked for.
            if module.training and tensor is not None and tensor.numel():
                self._seen.setdefault(name, []).append(_statistics(tensor.detach()))

        return watch


def _statistics(values: Tensor) -> Tensor:
    values = values.float()
    # Three axes are batch, token and feature; otherwise units come second.
    values = values.reshape(1, -1) if values.ndim < 2 else values
    axis = 2 if values.ndim == 3 else 1
    units = values.movedim(axis, 0).reshape(values.shape[axis], -1)
    zero = units == 0
    std = values.std(correction=0)
    return torch.stack([values.mean(), std, zero.float().mean(), zero.all(1).float().mean()])


def _first_tensor(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, list | tuple):
        return next((found for each in output if (found := _first_tensor(each)) is not None), None)
    return None
