"""Counts of tracking, and sums of them over sequences and classes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeVar

__all__ = ["Counts", "ratio"]

C = TypeVar("C", bound="Counts")


@dataclass(frozen=True)
class Counts:
    """Counts that add up over sequences and classes; arrays ``(S, C, ...)``, or a sum of them."""

    def __getitem__(self: C, place: Any) -> C:
        """Return the counts of some sequences and classes."""
        return type(self)(*(getattr(self, field.name)[place] for field in fields(self)))

    def reshape(self: C, shape: tuple[int, ...]) -> C:
        """Return the counts of S * C units as those of S sequences and C classes."""
        columns = (getattr(self, field.name) for field in fields(self))
        return type(self)(*(column.reshape(shape + column.shape[1:]) for column in columns))

    def sum(self: C, axis: int | tuple[int, ...]) -> C:
        """Return the counts summed over sequences (0), classes (1) or both."""
        return type(self)(*(getattr(self, field.name).sum(axis=axis) for field in fields(self)))


def ratio(part: Any, whole: Any) -> float:
    """Return ``part / whole``, NaN if ``whole`` is 0."""
    return float(part / whole) if whole else float("nan")
