"""Freeze layers by a schedule, and give layers learning rates of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from .layer_freeze import FreezeRule, LayerFreeze, split_learning_rates
from .run import Monitor, Run

__all__ = ["LayerFreezeMonitor"]


class LayerFreezeMonitor(Monitor):
    """Freeze layers by a schedule and give layers learning rates of their own, for transfer learning.

    See :class:`cvplugins.monitors.LayerFreeze` and :func:`cvplugins.monitors.split_learning_rates`. Frozen batch
    norms do not move, whatever the loop does with ``model.train()``. Schedulers keep the factors. Resumed runs go on
    as they were, with the same options.

    Args:
        frozen: Rules: ``dict(layers=['backbone'], until=1000)`` and optionally ``begin``, counted from 0; without
            ``until`` for the whole training. Names or patterns of modules or parameters.
        lr_factors: Factor on the learning rate by name or pattern; the last that matches counts.

    Raises:
        ValueError: There is nothing to do, or a rule is not valid or names nothing in the model.
    """

    def __init__(self, frozen: Sequence[Mapping[str, Any]] = (), lr_factors: Mapping[str, float] | None = None) -> None:
        if not frozen and not lr_factors:
            raise ValueError("there is nothing to do; set frozen or lr_factors")
        self.rules = [FreezeRule(**rule) for rule in frozen]
        self.lr_factors = dict(lr_factors or {})
        self._freeze: LayerFreeze | None = None

    def begin(self, run: Run) -> None:
        """Find the layers."""
        self._freeze = LayerFreeze(run.model, self.rules)

    def observe(self, run: Run, step: int, unit: str = "iteration") -> None:
        """Freeze and release what is due at a step."""
        assert self._freeze is not None  # it has begun
        report = self._freeze.observe(step)
        if report:
            run.info(f"{unit} {report.step}: {report}")

    def before_iteration(self, run: Run) -> None:
        """Freeze and release what is due."""
        self.observe(run, run.iteration)

    def split(self, run: Run, optimizer: Optimizer, model: nn.Module) -> list[tuple[int, float]]:
        """Split an optimizer's groups by the factors; see :func:`split_learning_rates` for what is returned."""
        origins = split_learning_rates(optimizer, model, self.lr_factors)
        factors = ", ".join(f"{pattern} x {factor:g}" for pattern, factor in self.lr_factors.items())
        run.info(f"learning rates by layer: {factors}")
        return origins

    def release(self, run: Run) -> None:
        """Leave the model as it came."""
        if self._freeze is not None:
            self._freeze.restore()
