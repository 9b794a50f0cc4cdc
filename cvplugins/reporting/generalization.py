"""Draw training and validation side by side, with what was said about them."""

from __future__ import annotations

import itertools
import os
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cvplugins.monitors.generalization import GeneralizationReport  # monitors draw with this package

__all__ = ["draw_generalization_figure"]

COLOURS = {
    "learning": "tab:green",
    "converged": "tab:blue",
    "underfitting": "tab:orange",
    "overfitting": "tab:red",
    "overconfident": "tab:purple",
    "not finite": "black",
}


def draw_generalization_figure(reports: Sequence[GeneralizationReport], *paths: str | os.PathLike[str]) -> None:
    """Draw losses, and metrics where there are any, over iterations; the ground shows the verdict.

    Args:
        reports: One for each evaluation, in order.
        paths: Files to write, such as ``generalization.png``.

    Raises:
        ImportError: matplotlib is not installed.
    """
    points = [report.point for report in reports]
    kinds = [
        kind
        for kind in ("loss", "metric")
        if any(getattr(point, f"{part}_{kind}") is not None for point in points for part in ("train", "val"))
    ]
    figure = new_figure(8, 3.2 * len(kinds) + 0.6)
    for row, kind in enumerate(kinds, start=1):
        axes = figure.add_subplot(len(kinds), 1, row)
        for part, style in (("train", "--"), ("val", "-")):
            series = [(point.iteration, getattr(point, f"{part}_{kind}")) for point in points]
            series = [(iteration, value) for iteration, value in series if value is not None]
            if series:
                label = {"train": "training", "val": "validation"}[part]
                axes.plot(*zip(*series, strict=True), style, color="black", marker=".", label=label)
        _shade(axes, reports)
        axes.set_ylabel(kind)
        axes.set_xlabel("iteration")
        if row == 1:
            axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    if reports:
        figure.suptitle(f"{reports[-1].verdict}: {_wrapped(reports[-1].evidence)}", fontsize="small")
    save_figure(figure, *paths)


def _shade(axes: Axes, reports: Sequence[GeneralizationReport]) -> None:
    named = set()
    for earlier, report in itertools.pairwise(reports):
        if colour := COLOURS.get(report.verdict):
            label = None if report.verdict in named else report.verdict
            named.add(report.verdict)
            edges = earlier.point.iteration, report.point.iteration
            axes.axvspan(*edges, color=colour, alpha=0.2, linewidth=0, label=label)


def _wrapped(text: str, width: int = 100) -> str:
    return "\n".join(textwrap.wrap(text, width))
