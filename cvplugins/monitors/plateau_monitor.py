"""Find the plateau of a metric, where an optimizer is to follow another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .early_stopping import EarlyStopping
from .evaluation_monitor import MetricMonitor
from .metric_names import mode_of
from .run import Run

__all__ = ["PlateauMonitor"]


class PlateauMonitor(MetricMonitor):
    """Say where a metric stops improving: where early stopping would stop.

    Args:
        monitor: Name of the metric.
        rule: ``"less"`` or ``"greater"`` is better; None goes by the name.
        options: Of :class:`cvplugins.monitors.EarlyStopping`, such as ``patience``.

    Attributes:
        due: Whether the plateau was found.

    Raises:
        ValueError: An option is out of its range.
    """

    title = "optimizer switch"
    journal_name = "optimizer_switch.jsonl"

    def __init__(self, monitor: str, rule: str | None = None, **options: Any) -> None:
        # Infinities are for others to judge; here they are no progress.
        super().__init__(monitor, EarlyStopping(mode=mode_of(monitor, rule), check_finite=False, **options))
        self.due = False

    def monitored(self) -> dict[str, str]:
        """Return the name of the metric."""
        return {"plateau.monitor": self.name}

    def observe(self, run: Run, record: Mapping[str, Any], replayed: bool) -> dict[str, Any]:
        """Look for the plateau until it is found."""
        report = self.judge.observe(record["value"], record["iteration"])
        if report and report.stop and not self.due:
            self.due = True
            run.info(f"a plateau of {self.name}: {report.stop}")
        return {"waited": report and report.waited, "switched": self.due}
