"""What a run ends with: how good the model is, and where everything lies."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from numbers import Real
from typing import Any

from cvplugins.files import write_whole

__all__ = ["summary_lines", "write_metrics"]


def summary_lines(metrics: Mapping[str, Any], places: Mapping[str, Any]) -> str:
    """Return a line for each mean of the metrics, and for each place where something lies.

    Args:
        metrics: Numbers by ``prefix/name``; those of single classes have another ``/`` in their names and are left out.
        places: Paths by what lies there.

    Example:
        >>> print(summary_lines({"bbox/AP50": 0.5, "bbox/AP50/dog": 0.25}, {"log": "work_dirs/log.txt"}))
        bbox/AP50                0.5000
        log                      work_dirs/log.txt
    """
    lines = [f"{name:<24} {_shown(value)}" for name, value in metrics.items() if name.count("/") < 2]
    return "\n".join(lines + [f"{name:<24} {place}" for name, place in places.items()])


def write_metrics(path: str | os.PathLike[str], metrics: Mapping[str, Any]) -> None:
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
