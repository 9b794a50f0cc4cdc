"""What a split holds, and the reading of names that both checks of boxes share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from cvplugins.datasets.class_names import ClassCounts, bare_name
from cvplugins.datasets.findings import Findings

__all__ = ["SplitReport", "warn_of_spelling"]


@dataclass
class SplitReport:
    """What a split holds.

    Attributes:
        name: Of the split.
        images: How many.
        objects: How many of each class; pixels for label maps.
        unit: ``"objects"`` or ``"pixels"``.
        looked_at: How many label maps were decoded, if these are label maps.
    """

    name: str
    images: int = 0
    objects: Counter[str] = field(default_factory=Counter)
    unit: str = "objects"
    looked_at: int | None = None

    def __str__(self) -> str:
        total = f"{sum(self.objects.values()):,} {self.unit} of {len(self.objects)} classes"
        looked = "" if self.looked_at in (None, self.images) else f" in {self.looked_at:,} label maps"
        return f"{self.name}: {self.images:,} images, {total}{looked}"


def warn_of_spelling(name: str, names: Iterable[str], counts: ClassCounts, findings: Findings) -> None:
    """Warn of names that differ in case, blanks or hyphens alone: they are two classes for every loader."""
    alike: dict[str, list[str]] = {}
    for each in names:
        alike.setdefault(bare_name(each), []).append(each)
    for group in alike.values():
        if len(group) > 1:
            listed = ", ".join(f"{each!r} ({counts.usable[each] + counts.unusable[each]})" for each in group)
            findings.warn("classes", f"{name}: one class in several spellings? {listed}")
