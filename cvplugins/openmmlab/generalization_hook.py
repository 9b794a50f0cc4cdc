"""GeneralizationHook: training and validation side by side, and what they say."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from cvplugins.monitors import GeneralizationMonitor
from cvplugins.registry import HOOKS

from .evaluation_hook import EvaluationHook
from .runner_run import RunnerRun

__all__ = ["GeneralizationHook"]


@HOOKS.register_module()
class GeneralizationHook(EvaluationHook):
    """mmengine's :class:`cvplugins.monitors.GeneralizationMonitor`.

    ``train_loss`` and ``train_metric`` are names of what a training step returns, such as mmdet's ``"acc"``.
    """

    __signature__ = inspect.signature(GeneralizationMonitor)
    journal_name = "generalization.jsonl"
    checkpoint_key = "cvplugins_generalization"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        try:
            self.monitor = GeneralizationMonitor(*arguments, **options)
        except ValueError as error:
            raise ValueError(f"GeneralizationHook: {error}") from error

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Count the iteration."""
        loss, metric = self.monitor.train_loss, self.monitor.train_metric
        if any(name and name not in outputs for name in (loss, metric)):
            raise ValueError(f"GeneralizationHook: {self.monitor.missing(outputs)}")
        self.monitor.judge.add(outputs[loss], outputs[metric] if metric else None)

    def monitored(self) -> dict[str, str]:
        """Return the names of the loss and of the metric of the validation."""
        return self.monitor.monitored()

    def record(self, runner, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Return the validation, and the training since the last one."""
        seen = self.monitor.seen
        return self.monitor.record(runner.iter, lambda name: self.value(runner, metrics, name, seen))

    def observe(self, runner, record: dict[str, Any], replayed: bool) -> dict[str, Any]:
        """Judge."""
        return self.monitor.observe(RunnerRun(runner), record, replayed)

    def after_train(self, runner) -> None:
        """Draw the whole course, and say what came of it."""
        super().after_train(runner)
        self.monitor.finish(RunnerRun(runner))
