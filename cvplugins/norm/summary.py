"""What a normalisation policy did to a model, as tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["NormLayer", "NormSummary", "align", "shorten"]


@dataclass(frozen=True)
class NormLayer:
    """What became of one layer.

    Attributes:
        name: Its name in the model.
        before: Its package and class.
        after: The same now, with the momentum if that was set.
        reason: Why it was left alone; empty if it was converted.
    """

    name: str
    before: str
    after: str
    reason: str = ""


@dataclass(frozen=True)
class NormSummary:
    """What became of every batch norm of a model.

    Attributes:
        layers: In the order of the model.
        warnings: Settings that do nothing or contradict each other.
    """

    layers: tuple[NormLayer, ...]
    warnings: tuple[str, ...] = ()

    @property
    def converted(self) -> tuple[str, ...]:
        """Names of the layers that were converted."""
        return tuple(layer.name for layer in self.layers if not layer.reason)

    @property
    def left(self) -> dict[str, str]:
        """Names of the layers that were left alone, and why."""
        return {layer.name: layer.reason for layer in self.layers if layer.reason}

    def table(self) -> str:
        """Return one line per layer."""
        rows = [(x.name or "(model)", x.before, x.after, x.reason) for x in self.layers]
        return align([("layer", "was", "is", "left because"), *rows])

    def tell(self, info: Callable[[str], object], warn: Callable[[str], object]) -> None:
        """Hand the table of changes and the warnings to the functions of a log."""
        info(f"normalisation policy:\n{self.table_of_changes()}")
        for warning in self.warnings:
            warn(f"normalisation policy: {warning}")

    def overview(self) -> str:
        """Return the table of changes and the warnings."""
        return "\n".join([self.table_of_changes(), *(f"warning: {warning}" for warning in self.warnings)])

    def table_of_changes(self) -> str:
        """Return one line per kind of change."""
        groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        for layer in self.layers:
            groups[layer.before, layer.after, layer.reason].append(layer.name or "(model)")
        rows = [(str(len(names)), *change, shorten(names)) for change, names in groups.items()]
        return align([("layers", "was", "is", "left because", "names"), *rows])


def shorten(names: Sequence[str]) -> str:
    """Return the first and the last of many names.

    >>> shorten(["a", "b", "c"])
    'a ... c'
    """
    return ", ".join(names) if len(names) < 3 else f"{names[0]} ... {names[-1]}"


def align(rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
