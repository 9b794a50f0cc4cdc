"""Keep the weights of the best evaluation."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .best_weights import BestWeights
from .early_stopping import EarlyStopping, StoppingReport
from .evaluation_monitor import MetricMonitor
from .metric_names import mode_of
from .run import Run

__all__ = ["BestCheckpointMonitor"]


class BestCheckpointMonitor(MetricMonitor):
    """Keep the weights of the best evaluation in ``model_best.pth`` in the work dir.

    Where an average of the weights was evaluated, it is what is kept. The values of all evaluations lie in
    ``best_checkpoint.jsonl``. A resumed run remembers the best one.

    Args:
        monitor: Name of a metric, such as ``"bbox/AP50"`` or ``"val/loss"`` (of ``ValidationLoss``).
        rule: ``"less"`` or ``"greater"`` is better; None goes by the name.

    Attributes:
        keeps: Whether weights are kept at all.

    Raises:
        ValueError: The rule is unknown, or there is none and the name does not tell.
    """

    title = "best checkpoint"
    journal_name = "best_checkpoint.jsonl"
    file_name = "model_best.pth"
    keeps = True
    best: BestWeights

    def __init__(self, monitor: str, rule: str | None = None) -> None:
        judge = EarlyStopping(mode=mode_of(monitor, rule), patience=sys.maxsize, check_finite=False)
        super().__init__(monitor, judge)

    def begin(self, run: Run) -> None:
        """Begin without the weights of an earlier run."""
        self.best = BestWeights(Path(run.work_dir, self.file_name), key=run.weights_key)
        if self.keeps and not run.iteration:
            self.best.discard()
        super().begin(run)

    def observe(self, run: Run, record: Mapping[str, Any], replayed: bool) -> dict[str, Any]:
        """Keep the weights if they are the best ones."""
        report = self.judge.observe(record["value"], record["iteration"])
        if report is None:
            return {}
        if report.is_best and self.keeps and not replayed:
            done = {name: record[name] for name in ("iteration", "epoch") if name in record}
            self.best.keep(run.model, **done, **{self.name: report.value})
            run.info(f"{self.name} of {report.value:.6g} is the best so far: {self.best.path}")
        return {"best": self.judge.best, **self.act(run, report, replayed)}

    def act(self, run: Run, report: StoppingReport, replayed: bool) -> dict[str, Any]:
        """Act on a report; return what to add to the journal."""
        return {}
