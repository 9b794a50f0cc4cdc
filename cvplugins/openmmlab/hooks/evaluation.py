"""What hooks around a monitor of evaluations share: when a validation counts, and that none is owed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cvplugins.errors import UserError
from cvplugins.monitors import EvaluationMonitor
from cvplugins.openmmlab.run.metric_names import metric_names

from .monitor_hook import MonitorHook
from .validations import ValidationsHook

__all__ = ["EvaluationHook"]


class EvaluationHook(MonitorHook):
    """A hook of mmengine around an :class:`cvplugins.monitors.EvaluationMonitor`.

    mmengine writes a checkpoint before the validation of the same epoch. :class:`ValidationsHook`, which this one
    brings along, makes up for a validation that a kill prevented.
    """

    # Before EMAHook puts the training weights back, and before CheckpointHook writes the best checkpoint.
    priority = "ABOVE_NORMAL"
    monitor: EvaluationMonitor

    def monitored(self) -> dict[str, str]:
        """Return the names of the numbers that the monitor looks at, by the option that gives them."""
        return self.monitor.monitored()

    def before_run(self, runner) -> None:
        """Ask for the validation that a killed run owes, to be made when all hooks are ready."""
        if self.monitored() and not any(isinstance(hook, ValidationsHook) for hook in runner.hooks):
            runner.register_hook(ValidationsHook())

    def before_train(self, runner) -> None:
        """Begin, if there are validations that have the numbers."""
        if self.monitored() and runner.val_loop is None:
            raise UserError(f"{type(self).__name__} learns from validations, and this run has none: set val_cfg")
        for option, name in self.monitored().items():
            metric_names(runner).check(name, f"{type(self).__name__}: {option}")
        super().before_train(runner)

    def after_val_epoch(self, runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Tell the monitor; validations without a training have no run."""
        if metrics is not None and hasattr(self, "run") and self.monitored():
            self.monitor.evaluated(self.run, metrics, {"iteration": runner.iter, "epoch": runner.epoch})
