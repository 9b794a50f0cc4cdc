"""Hook: keep the weights of the best evaluation."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cvplugins.monitors import BestWeights, EarlyStopping, StoppingReport, mode_of

from .evaluation_hook import EvaluationHook
from .plugin_hook import logger

__all__ = ["BestCheckpointHook"]


class BestCheckpointHook(EvaluationHook):
    """Keep the weights of the best evaluation in ``model_best.pth``, which ``MODEL.WEIGHTS`` takes.

    With EMAHook these are the averaged ones, which were evaluated. Detectron2's BestCheckpointer forgets the best value
    when a run is resumed, lets the next resume start from the best checkpoint instead of the last, and only warns of a
    metric that does not exist; here it is an error that lists those that there are.

    Args:
        monitor: Name of a metric, such as ``bbox/AP50`` or ``val/loss`` (of ValidationLoss).
        rule: ``"less"`` or ``"greater"`` is better; None goes by the name.
        output_dir: Where the weights and ``best_checkpoint.jsonl``, the values of all evaluations, are written.

    Raises:
        ValueError: The rule is unknown, or there is none and the name does not tell.
    """

    journal_name = "best_checkpoint.jsonl"
    file_name = "model_best.pth"

    def __init__(self, monitor: str, rule: str | None = None, output_dir: str = ".") -> None:
        super().__init__(output_dir)
        self.name = monitor
        self.monitor = EarlyStopping(mode=mode_of(monitor, rule), patience=sys.maxsize, check_finite=False)
        self._seen = False
        self._best = BestWeights(Path(output_dir, self.file_name), key="model")

    def begin(self) -> None:
        """Begin without the weights of an earlier run."""
        if not self.trainer.start_iter:
            self._best.discard()
        super().begin()

    def monitored(self) -> dict[str, str]:
        """Return the name of the metric."""
        return {"monitor": self.name}

    def record(self, scalars: Mapping[str, float]) -> dict[str, Any]:
        """Return the monitored value."""
        return {"metric": self.name, "value": self.value(scalars, self.name, self._seen)}

    def observe(self, record: dict[str, Any], replayed: bool) -> dict[str, Any]:
        """Keep the weights if they are the best ones."""
        self._seen |= record["value"] is not None
        report = self.monitor.observe(record["value"], record["iteration"])
        if report is None:
            return {}
        if report.is_best and not replayed:
            self.keep(report)
        return {"best": self.monitor.best, **self.judge(report)}

    def keep(self, report: StoppingReport) -> None:
        """Write the weights as they are now."""
        self._best.keep(self.model, iteration=report.iteration, **{self.name: report.value})
        logger.info("%s of %.6g is the best so far: %s", self.name, report.value, self._best.path)

    def judge(self, report: StoppingReport) -> dict[str, Any]:
        """Act on a report; return what to add to the journal."""
        return {}
