"""EMAHook: evaluate and keep an average of the weights."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from cvplugins.monitors import WeightAverageMonitor

from .plugin_hook import MonitorHook

__all__ = ["EMAHook"]


class EMAHook(MonitorHook):
    """Detectron2's :class:`cvplugins.monitors.WeightAverageMonitor`; options have the names of mmengine's hook.

    EarlyStoppingHook and BestCheckpointHook keep the average too, and ``MODEL.WEIGHTS`` takes what is written.

    Args:
        output_dir: Where the last average is written; None for nowhere.
    """

    monitor_type = WeightAverageMonitor

    def __init__(self, *arguments: Any, output_dir: str | None = None, **options: Any) -> None:
        super().__init__(*arguments, output_dir=output_dir or ".", **options)
        self.writes = output_dir is not None

    def evaluation(self) -> AbstractContextManager[None]:
        """Let the average stand in for the weights."""
        return self.monitor.applied(self.run)

    def finish(self) -> None:
        """Write the average, if there is a place for it."""
        if self.writes:
            super().finish()
