"""ResultFilesHook: where the metrics of a run write."""

from __future__ import annotations

from mmengine.hooks import Hook

from cvplugins.openmmlab.metrics.base import PluginMetric
from cvplugins.registry import HOOKS

__all__ = ["ResultFilesHook"]


@HOOKS.register_module()
class ResultFilesHook(Hook):
    """Let the metrics write their JSON results and figures into the run's log folder.

    A metric does not know where a run logs to. One whose ``out_dir`` is set in the config keeps it.
    """

    def before_val(self, runner) -> None:
        """Tell the metrics of the validation."""
        self._tell(runner.val_loop.evaluator, runner.log_dir)

    def before_test(self, runner) -> None:
        """Tell the metrics of the test."""
        self._tell(runner.test_loop.evaluator, runner.log_dir)

    @staticmethod
    def _tell(evaluator, folder: str) -> None:
        for metric in evaluator.metrics:
            if isinstance(metric, PluginMetric) and metric.out_dir is None:
                metric.out_dir = folder
