"""A metric by its name: whether it exists, its value, and whether more or less of it is better."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cvplugins.errors import UserError

__all__ = ["MetricNames", "mode_of", "value_of"]

RULES = {"less": "min", "greater": "max"}
# mmengine/hooks/early_stopping_hook.py, 0.10, and the prefixes of our own scores
SCORES = ("acc", "top", "ar@", "auc", "precision", "map", "mdice", "miou", "ap", "recall", "f1")
A_NAME = "expected the name of a metric, such as 'val/loss'"


def mode_of(name: str, rule: str | None) -> str:
    """Return ``"min"`` or ``"max"`` for a metric, by the rule, or by its name.

    Raises:
        ValueError: The name is no text, the rule is unknown, or there is none and the name does not tell.

    Example:
        >>> mode_of("val/loss", None), mode_of("bbox/AP50", None), mode_of("speed", "greater")
        ('min', 'max', 'max')
    """
    if not isinstance(name, str):
        raise ValueError(f"monitor is {name!r}; {A_NAME}")
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


def value_of(metrics: Mapping[str, Any], name: str, who: str, may_come: bool) -> float | None:
    """Return a metric as a float, or None if this validation has none: it is undefined, there is no value yet.

    Args:
        metrics: Of one validation.
        name: Of the metric.
        who: Who asks, for the message.
        may_come: Whether another validation may have it: an earlier one had it, or the metrics know the name.

    Raises:
        UserError: The name is of none of the metrics; the message lists those that there are.
    """
    if metrics.get(name) is not None:
        return float(metrics[name])
    if may_come:
        return None
    raise UserError(
        f"{who}: there is no '{name}' among the metrics of the validation; "
        f"use one of {', '.join(metrics) or 'none'}{_hint(name)}"
    )


@dataclass(frozen=True)
class MetricNames:
    """The names of all numbers that the validations of a run can give, undefined ones included.

    Attributes:
        names: Those that are known.
        beginnings: Of names that are not known one by one, such as ``"val/"``; ``""`` if anything may come.

    Example:
        >>> known = MetricNames(("bbox/AP50", "bbox/precision"), ("val/",))
        >>> known.has("bbox/AP50"), known.has("val/loss_cls"), known.has("bbox/AP5O")
        (True, True, False)
    """

    names: tuple[str, ...]
    beginnings: tuple[str, ...] = ()

    def __add__(self, other: MetricNames) -> MetricNames:
        """Return the names of both."""
        return MetricNames(self.names + other.names, self.beginnings + other.beginnings)

    def has(self, name: str) -> bool:
        """Return whether a validation may give this number."""
        return name in self.names or name.startswith(self.beginnings)

    def check(self, name: str, place: str) -> None:
        """Raise ``UserError`` for a name that no validation can give.

        Args:
            name: What is monitored.
            place: Where it was set, such as ``"EarlyStoppingHook: monitor"``.
        """
        if not isinstance(name, str):
            raise UserError(f"{place} is {name!r}; {A_NAME}")
        if self.has(name):
            return
        close = _closest(name, self.names)
        # Classes can be hundreds, and who means one finds it among the closest.
        general = [each for each in self.names if each.count("/") <= 1]
        raise UserError(
            f"{place} is {name!r}, which no validation of this config gives; "
            + (f"did you mean {' or '.join(close)}? " if close else "")
            + f"There are {', '.join(general) or 'no numbers'}{_hint(name)}"
        )


def _hint(name: str) -> str:
    return "; ValidationLoss adds losses" if "loss" in name else ""


def _closest(name: str, names: tuple[str, ...]) -> list[str]:
    """Return up to three names that were probably meant; what stands before the slash counts least."""
    of_kind = [each for each in names if each.count("/") == name.count("/")]  # not all classes for an AP5O
    alike = {_blurred(each): each for each in reversed(of_kind or names)}
    last = {each.rpartition("/")[2]: each for each in reversed(list(alike))}
    found = difflib.get_close_matches(_blurred(name), alike, n=3)
    found += [last[each] for each in difflib.get_close_matches(_blurred(name).rpartition("/")[2], last, n=3)]
    return [alike[each] for each in dict.fromkeys(found)][:3]


def _blurred(name: str) -> str:
    """Return a name without what eyes confuse: capitals, O and 0."""
    return name.lower().replace("o", "0")
