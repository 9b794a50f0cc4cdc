"""What a run ends with: how good the model is, and where everything lies."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import Runner

from cvplugins.reporting import summary_lines

__all__ = ["LastValidation", "summarize"]


class LastValidation(Hook):
    """Remember the metrics of this process's last validation, and after which iteration it was."""

    def __init__(self) -> None:
        self.iteration: int | None = None
        self.metrics: Mapping[str, Any] = {}

    def after_val_epoch(self, runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Keep the metrics."""
        self.iteration, self.metrics = runner.iter, dict(metrics or {})


def summarize(
    runner: Runner, metrics: Mapping[str, Any], checkpoint: str | os.PathLike | None, evaluator: Evaluator | None
) -> str:
    """Return the means of the metrics, and the paths of checkpoint, log and the files that metrics wrote."""
    places = {"checkpoint": checkpoint, "log": os.path.join(runner.log_dir, f"{runner.timestamp}.log")}
    for metric in evaluator.metrics if evaluator is not None else []:
        places.update(getattr(metric, "written", {}))
    return summary_lines(metrics, places)
