"""Hook: begin with one optimizer, finish with another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.engine.hooks import LRScheduler as LRSchedulerHook

from cvplugins.errors import UserError
from cvplugins.monitors import Monitor, PlateauMonitor, switch_optimizer
from cvplugins.options import check_options

from .evaluation_hook import EvaluationHook
from .plugin_hook import logger

__all__ = ["OptimizerSwitchHook"]


class OptimizerSwitchHook(EvaluationHook):
    """Go on with another optimizer from an iteration on, or when a metric stops improving.

    Parameter groups with their proportions of rate and decay, the place in the schedule, the loss scale of AMP and
    hooks on the optimizer carry over; moments begin anew. ``SOLVER.CLIP_GRADIENTS``, a part of the first optimizer that
    would end with it, is refused. See :func:`cvplugins.monitors.switch_optimizer`. A run resumes on either side of
    the switch.

    Args:
        optimizer: Name in ``torch.optim`` and options of the new optimizer, ``{type: SGD, lr: 0.01, momentum: 0.9}``;
            its ``lr`` stands where the schedule's base rate stood.
        at: First iteration with the new optimizer, counted from 0; None with ``plateau``.
        plateau: Options of EarlyStoppingHook: ``monitor``, ``rule``, ``min_delta``, ``patience`` and ``warmup``;
            switches where that would stop.
        output_dir: Where ``optimizer_switch.jsonl`` is written with ``plateau``.

    Raises:
        ValueError: An option is out of its range.
    """

    priority = 0  # before anything sees the iteration
    evaluates = False
    monitor: Any

    def __init__(
        self,
        optimizer: Mapping[str, Any],
        at: int | None = None,
        plateau: Mapping[str, Any] | None = None,
        output_dir: str = ".",
    ) -> None:
        self.output_dir = output_dir
        if (at is None) == (plateau is None):
            raise ValueError("OptimizerSwitchHook switches either at= a step or at a plateau; set one of them")
        if at is not None and at < 1:
            raise ValueError(f"at is {at}; it must be at least 1, else build the trainer with that optimizer")
        if "type" not in optimizer or "lr" not in optimizer:
            raise ValueError(f"the new optimizer needs type and lr: {{type: SGD, lr: 0.01}}, not {dict(optimizer)}")
        self.options = {name: value for name, value in optimizer.items() if name != "type"}
        self.type = _optimizer_type(optimizer["type"])
        check_options(self.type, {"params", *self.options})
        self.at = at
        self.monitor = Monitor()  # which does nothing
        self._due = self._switched = False
        self.evaluates = plateau is not None
        if plateau is not None:
            if "monitor" not in plateau:
                raise ValueError("plateau needs the name of a metric: plateau={monitor: val/loss, patience: 3}")
            self.monitor = PlateauMonitor(**plateau)

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Return the output folder, and refuse clipping that would end with the first optimizer."""
        if cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
            raise UserError(
                "SOLVER.CLIP_GRADIENTS would end with the first optimizer; set SOLVER.CLIP_GRADIENTS.ENABLED to False "
                "and take GradientClippingHook"
            )
        return super().from_config(cfg)

    def before_step(self) -> None:
        """Switch when it is time."""
        super().before_step()
        if self.at is not None:
            self._due = self.trainer.iter >= self.at
        else:
            self._due = self.monitor.due
        if self._due and not self._switched:
            self._switch()

    def monitored(self) -> dict[str, str]:
        """Return the name of the metric of the plateau, if there is one."""
        return {} if self.at is not None else super().monitored()

    def state_dict(self) -> dict[str, Any]:
        """Return the monitor's state, and which optimizer the checkpoint's is."""
        due = self.monitor.due if self.at is None else self._due
        return {**super().state_dict(), "due": due, "switched": self._switched}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Switch, so that the optimizer fits the state that the trainer loads next."""
        if self.at is None and "monitor" in state:
            super().load_state_dict(state)
        self._due = state["due"]
        if self.at is None:
            self.monitor.due = self._due
        if state["switched"]:
            self._switch(scale_schedule=False)  # Detectron2's own hook restores its rates

    def _switch(self, scale_schedule: bool = True) -> None:
        self._due = self._switched = True
        old = self.trainer.optimizer
        new, ratio = switch_optimizer(old, lambda groups: self.type(groups, **self.options))
        for scheduler in self.schedulers:
            scheduler.optimizer = new
            if scale_schedule:
                scheduler.base_lrs = [rate * ratio for rate in scheduler.base_lrs]
        for hook in self.trainer._hooks:
            if isinstance(hook, LRSchedulerHook):
                hook._optimizer = new
        inner: Any = getattr(self.trainer, "_trainer", self.trainer)
        inner.optimizer = new
        names = (self.trainer.iter, type(new).__name__, type(old).__name__, ratio)
        logger.info("iteration %d: %s follows %s, with %g times the learning rate", *names)


def _optimizer_type(name: str) -> type[torch.optim.Optimizer]:
    known = {
        each.__name__: each
        for each in vars(torch.optim).values()
        if isinstance(each, type) and issubclass(each, torch.optim.Optimizer) and each is not torch.optim.Optimizer
    }
    if name not in known:
        raise UserError(f"torch.optim has no optimizer {name!r}; use {', '.join(sorted(known))}")
    return known[name]
