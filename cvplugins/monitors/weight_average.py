"""Exponential moving average of weights, which can stand in for them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage"]


class WeightAverage:
    """Mean of a model's weights over the last iterations, older ones counting less.

    Update ``n`` moves the average by ``momentum + (1 - momentum) * exp(-(1 + n) / gamma)`` of the way to the weights
    (without ``gamma`` by ``momentum``; the first copies them). These are the rules of mmengine's and mmdet's EMA, and
    with ``momentum = 1 - decay`` of torch's ``AveragedModel``, which however copies the whole model, hooks and all.

    Reference: Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992; Tarvainen and Valpola,
    Mean teachers are better role models, 2017, arXiv:1703.01780.

    Args:
        model: The model, unwrapped; the average begins as its weights.
        momentum: Part of the way to the weights that an update goes, in (0, 1).
        gamma: Updates in which the average follows faster; 0 for none.
        begin: First iteration that counts.
        interval: Iterations between updates, at least 1.
        update_buffers: Whether floating-point buffers (batch norm's statistics) are averaged too. If not, the
            average is evaluated with the model's own.

    Attributes:
        updates: How many were made.

    Raises:
        ValueError: An option is out of its range.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(model.weight)
        >>> average = WeightAverage(model, momentum=0.25)
        >>> average.update(model, iteration=0)
        >>> _ = nn.init.ones_(model.weight)
        >>> average.update(model, iteration=1)
        >>> with average.applied(model): model.weight.item()
        0.25
        >>> model.weight.item()
        1.0
    """

    def __init__(
        self,
        model: nn.Module,
        momentum: float = 0.0002,
        gamma: int = 0,
        begin: int = 0,
        interval: int = 1,
        update_buffers: bool = False,
    ) -> None:
        self.check(momentum, gamma, begin, interval)
        self.momentum, self.gamma, self.begin, self.interval = momentum, gamma, begin, interval
        self.update_buffers = update_buffers
        self.updates = 0
        self._values = {name: value.detach().clone() for name, value in self._averaged(model).items()}

    @staticmethod
    def check(momentum: float, gamma: int = 0, begin: int = 0, interval: int = 1) -> None:
        """Raise ``ValueError`` if an option is out of its range."""
        if not 0 < momentum < 1:
            raise ValueError(f"momentum is {momentum}; it must be between 0 and 1, such as 0.0002 (a decay of 0.9998)")
        for name, value, least in (("gamma", gamma, 0), ("begin", begin, 0), ("interval", interval, 1)):
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")

    @torch.no_grad()
    def update(self, model: nn.Module, iteration: int) -> None:
        """Follow the weights, if it is time; call it after each iteration's step, counted from 0."""
        if iteration < self.begin or (iteration + 1) % self.interval:
            return
        weight = self.momentum
        if self.gamma:
            weight += (1 - self.momentum) * math.exp(-(1 + self.updates) / self.gamma)
        now = self._averaged(model)
        for dtype in {value.dtype for value in now.values()}:  # one kernel each
            names = [name for name, value in now.items() if value.dtype == dtype]
            averages, values = [self._values[name] for name in names], [now[name] for name in names]
            if self.updates:
                torch._foreach_lerp_(averages, values, weight)
            else:
                torch._foreach_copy_(averages, values)
        self.updates += 1

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Let the average stand in for the weights; before the first update there is none."""
        if not self.updates:
            yield
            return
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run has to know."""
        return {"updates": self.updates, "average": dict(self._values)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned.

        Raises:
            ValueError: It is the average of other weights.
        """
        different = sorted(set(state["average"]) ^ set(self._values))
        if different:
            raise ValueError(f"the stored average is that of other weights: {len(different)} differ, as {different[0]}")
        self.updates = state["updates"]
        for name, value in self._values.items():
            value.copy_(state["average"][name])

    def _averaged(self, model: nn.Module) -> dict[str, Tensor]:
        values: dict[str, Tensor] = dict(model.named_parameters())
        if self.update_buffers:
            values.update((name, value) for name, value in model.named_buffers() if value.is_floating_point())
        return values

    def _swap(self, model: nn.Module) -> None:
        """Exchange the storages, which copies nothing; parameters stay the same objects."""
        for name, value in self._averaged(model).items():
            value.data, self._values[name] = self._values[name], value.data
