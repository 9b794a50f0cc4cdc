"""GeneralizationHook: training and validation side by side, and what they say."""

from __future__ import annotations

from typing import Any

from cvplugins.monitors import GeneralizationMonitor
from cvplugins.registry import HOOKS

from .evaluation import EvaluationHook

__all__ = ["GeneralizationHook"]


@HOOKS.register_module()
class GeneralizationHook(EvaluationHook):
    """mmengine's :class:`cvplugins.monitors.GeneralizationMonitor`.

    ``train_loss`` and ``train_metric`` are names of what a training step returns, such as mmdet's ``"acc"``.
    """

    monitor_type = GeneralizationMonitor
    checkpoint_key = "cvplugins_generalization"
    monitor: GeneralizationMonitor

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Count the iteration."""
        loss, metric = self.monitor.train_loss, self.monitor.train_metric
        if any(name and name not in outputs for name in (loss, metric)):
            raise ValueError(f"GeneralizationHook: {self.monitor.missing(outputs)}")
        self.monitor.judge.add(outputs[loss], outputs[metric] if metric else None)
