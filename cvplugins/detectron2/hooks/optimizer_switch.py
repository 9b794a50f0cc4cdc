"""OptimizerSwitchHook: begin with one optimizer, finish with another."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.engine.hooks import LRScheduler as LRSchedulerHook

from cvplugins.errors import UserError
from cvplugins.monitors import OptimizerSwitchMonitor
from cvplugins.options import check_options

from .evaluation import EvaluationHook
from .monitored_run import TrainerRun

__all__ = ["OptimizerSwitchHook"]


class OptimizerSwitchHook(EvaluationHook):
    """Detectron2's :class:`cvplugins.monitors.OptimizerSwitchMonitor`.

    The ``type`` of ``optimizer`` is a name in ``torch.optim``. ``SOLVER.CLIP_GRADIENTS``, a part of the first optimizer
    that would end with it, is refused.

    Raises:
        UserError: There is no such optimizer, or it does not take an option.
    """

    priority = 0  # before anything sees the iteration
    evaluates = False
    monitor_type = OptimizerSwitchMonitor
    monitor: OptimizerSwitchMonitor

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._options = dict(self.monitor.optimizer)
        self._type = _optimizer_type(self._options.pop("type"))
        check_options(self._type, {"params", *self._options})
        self.evaluates = bool(self.monitor.monitored())

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
        if self.monitor.is_time(self.trainer.iter):
            self._switch()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Switch, so that the optimizer fits the state that the trainer loads next."""
        super().load_state_dict(state)
        if state["switched"]:
            self._switch(scale_schedule=False)  # Detectron2's own hook restores its rates

    def _switch(self, scale_schedule: bool = True) -> None:
        run = TrainerRun(self.trainer, self.output_dir)
        new, ratio = self.monitor.switch(
            run, self.trainer.optimizer, lambda groups: self._type(groups, **self._options)
        )
        for scheduler in self.schedulers:
            scheduler.optimizer = new
            if scale_schedule:
                scheduler.base_lrs = [rate * ratio for rate in scheduler.base_lrs]
        for hook in self.trainer._hooks:
            if isinstance(hook, LRSchedulerHook):
                hook._optimizer = new
        inner: Any = getattr(self.trainer, "_trainer", self.trainer)
        inner.optimizer = new


def _optimizer_type(name: str) -> type[torch.optim.Optimizer]:
    known = {
        each.__name__: each
        for each in vars(torch.optim).values()
        if isinstance(each, type) and issubclass(each, torch.optim.Optimizer) and each is not torch.optim.Optimizer
    }
    if name not in known:
        raise UserError(f"torch.optim has no optimizer {name!r}; use {', '.join(sorted(known))}")
    return known[name]
