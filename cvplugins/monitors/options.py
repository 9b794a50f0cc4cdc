"""Ranges of options that several monitors share."""

from __future__ import annotations

__all__ = ["require_at_least"]


def require_at_least(least: int, **options: int) -> None:
    """Raise ``ValueError`` unless each option, given by its name, is at least ``least``.

    >>> require_at_least(1, interval=0)
    Traceback (most recent call last):
    ...
    ValueError: interval is 0; it must be at least 1
    """
    for name, value in options.items():
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")
