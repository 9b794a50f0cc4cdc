"""What a run ends with: how good the model is, and where everything lies."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from numbers import Real
from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import Runner

from cvplugins.files import write_whole

__all__ = ["LastValidation", "summarize", "write_metrics"]


class LastValidation(Hook):
    """Remember the metrics of this process's last validation, and after which iteration it was."""

    def __init__(self) -> None:
        self.iteration: int | None = None
        self.metrics: Mapping[str, Any] = {}

    def after_val_epoch(self, runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Keep the metrics."""
        self.iteration, self.metrics = runner.iter, metrics or {}


def summarize(
    runner: Runner, metrics: Mapping[str, Any], checkpoint: str | os.PathLike | None, evaluator: Evaluator | None
) -> str:
    """Return the means of the metrics, and the paths of checkpoint, log and the files that metrics wrote."""
    lines = [f"{name:<24}{_shown(value)}" for name, value in metrics.items() if name.count("/") < 2]
    places = {"checkpoint": checkpoint, "log": os.path.join(runner.log_dir, f"{runner.timestamp}.log")}
    for metric in evaluator.metrics if evaluator is not None else []:
        places.update(getattr(metric, "written", {}))
    return "\n".join(lines + [f"{name:<24}{place}" for name, place in places.items()])


def write_metrics(path: str | os.PathLike, metrics: Mapping[str, Any]) -> None:
    """Write metrics as JSON; what is undefined (NaN) as null."""
    plain = {name: _plain(value) for name, value in metrics.items()}
    with write_whole(path) as temporary:
        temporary.write_text(json.dumps(plain, indent=2) + "\n")


def _plain(value: Any) -> Any:
    if not isinstance(value, Real) and not hasattr(value, "__float__"):
        return value if isinstance(value, (str, list, dict, type(None))) else str(value)
    number = float(value)
    return number if math.isfinite(number) else None


def _shown(value: Any) -> str:
    return f"{float(value):.4f}" if hasattr(value, "__float__") else str(value)
