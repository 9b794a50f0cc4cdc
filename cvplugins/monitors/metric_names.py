"""A metric by its name: its value, and whether more or less of it is better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["mode_of", "value_of"]

RULES = {"less": "min", "greater": "max"}
# mmengine/hooks/early_stopping_hook.py, 0.10, and the prefixes of our own scores
SCORES = ("acc", "top", "ar@", "auc", "precision", "map", "mdice", "miou", "ap", "recall", "f1")


def mode_of(name: str, rule: str | None) -> str:
    """Return ``"min"`` or ``"max"`` for a metric, by the rule, or by its name.

    Raises:
        ValueError: The rule is unknown, or there is none and the name does not tell.

    Example:
        >>> mode_of("val/loss", None), mode_of("bbox/AP50", None), mode_of("speed", "greater")
        ('min', 'max', 'max')
    """
    if rule is not None:
        if rule not in RULES:
            raise ValueError(f"rule is {rule!r}; use 'less' or 'greater'")
        return RULES[rule]
    if "loss" in name.lower():
        return "min"
    if any(score in name.lower() for score in SCORES):
        return "max"
    raise ValueError(
        f"whether more or less of '{name}' is better is not clear from the name; set rule='greater' or 'less'"
    )


def value_of(metrics: Mapping[str, Any], name: str, hook: object, seen: bool) -> float | None:
    """Return a metric as a float, or None if this validation does not have what earlier ones had.

    Args:
        metrics: Of one validation.
        name: Of the metric.
        hook: Who asks, for the message.
        seen: Whether an earlier validation had it.

    Raises:
        ValueError: No validation had it; the message lists the names that there are.
    """
    if name in metrics:
        return float(metrics[name])
    if seen:
        return None
    raise ValueError(
        f"{type(hook).__name__}: there is no '{name}' among the metrics of the validation; "
        f"use one of {', '.join(metrics) or 'none'}"
        + ("; cvplugins.ValidationLoss adds losses" if "loss" in name else "")
    )
