"""Fit class names into the lines of a log."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["LINE_LENGTH", "fit_names"]

LINE_LENGTH = 120


def fit_names(names: Sequence[str], length: int) -> list[str]:
    """Return the names, each cut to ``length`` characters, and cut ones with dots at the end.

    >>> fit_names(["cat", "swimming pool"], 10)
    ['cat', 'swimming..']
    """
    return [name if len(name) <= length else name[: length - 2] + ".." for name in names]
