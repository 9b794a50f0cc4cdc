"""A training's gradients: the lines that are written while it runs, and their figure, layers by time."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cvplugins.distributed import rank

from .figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cvplugins.monitors import DetailReport, GradientVerdict  # monitors draw with this package

__all__ = ["GradientLines", "draw_gradient_figure", "read_gradient_records"]

MOST_NAMES = 60  # that can be read beside each other
MOST_COLUMNS = 1000
COLORS = {"vanishing": "#d62728", "exploding": "#ff00c8", "dead": "#ff7f0e", "unused": "#606060", "plateau": "#1f77b4"}


class GradientLines:
    """A file of JSON lines, one for each closer look and each verdict, written by rank 0.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def add_detail(self, report: DetailReport, part: str = "") -> None:
        """Add what a closer look found, of one part of a model or all of it."""
        record: dict[str, Any] = {"iteration": report.iteration, "total_norm": report.total_norm}
        record["layers"] = report.layers
        if report.activations:
            record["activations"] = report.activations
        self._add(record | ({"part": part} if part else {}))

    def add_verdict(self, verdict: GradientVerdict) -> None:
        """Add a verdict."""
        self._add({"iteration": verdict.iteration, "verdict": verdict.as_dict()})

    def draw(self) -> None:
        """Draw what was written beside the file, as ``.png`` and ``.svg``; nothing if there was no closer look."""
        if rank() == 0 and self.path.exists():
            records = read_gradient_records(self.path)
            if any("layers" in record for record in records):
                draw_gradient_figure(records, self.path.with_suffix(".png"), self.path.with_suffix(".svg"))

    def _add(self, record: dict[str, Any]) -> None:
        if rank() == 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(_finite(record)) + "\n")


def _finite(value: Any) -> Any:
    """Return it without NaN and infinities, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_gradient_records(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the lines of ``gradient_health.jsonl``; a last one that a killed process left unfinished is dropped."""
    records = []
    for line in Path(path).read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def draw_gradient_figure(records: Sequence[dict[str, Any]], *paths: str | os.PathLike[str]) -> None:
    """Draw gradient norms and update-to-weight ratios of all layers over the iterations, and mark the verdicts.

    Args:
        records: What :func:`read_gradient_records` returned: each has ``iteration`` and either ``total_norm`` and
            ``layers`` (name to ``norm``, ``update_ratio``), or ``verdict``.
        paths: Where to; the suffix is the format: ``.png``, ``.svg`` or another one of matplotlib's.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is no record with layers.
    """
    observed = [record for record in records if "layers" in record]
    if not observed:
        raise ValueError("there are no observations to draw; was the run shorter than detail_interval?")
    observed = observed[:: -(-len(observed) // MOST_COLUMNS)]
    layers = list(dict.fromkeys(name for record in observed for name in record["layers"]))
    iterations = np.array([record["iteration"] for record in observed], dtype=float)
    figure = new_figure(16, 4 + 0.16 * min(len(layers), MOST_NAMES))
    grid = figure.subplots(2, 2, sharex=True, height_ratios=(max(3.0, 0.16 * min(len(layers), MOST_NAMES)), 1.5))
    maps = {"norm": "log10 of the gradient norm", "update_ratio": "log10 of the update-to-weight ratio"}
    for axes, (key, title) in zip(grid[0], maps.items(), strict=True):
        _draw_map(figure, axes, iterations, _table(observed, layers, key), title)
    places = range(0, len(layers), -(-len(layers) // MOST_NAMES))
    grid[0, 0].set_yticks(places, [layers[index] for index in places], size=7)
    grid[0, 0].set_ylabel("layer, the input on top")
    grid[0, 1].set_yticks([])
    verdicts = [record["verdict"] for record in records if "verdict" in record]
    _mark(figure, grid[0, 0], verdicts, layers)
    totals = np.array([np.nan if record["total_norm"] is None else record["total_norm"] for record in observed])
    _draw_line(grid[1, 0], iterations, totals, "norm of all gradients")
    ratios = _table(observed, layers, "update_ratio")
    _draw_line(grid[1, 1], iterations, _median(ratios), "median update-to-weight ratio")
    grid[1, 1].axhline(1e-3, color="#909090", linestyle=":", label="1e-3, a common rule of thumb")
    grid[1, 1].legend(fontsize=8, loc="best")
    kinds = [verdict["kind"] for verdict in verdicts]
    found = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)) or "no verdicts"
    figure.suptitle(f"{len(layers)} layers, iterations {iterations[0]:.0f} to {iterations[-1]:.0f}: {found}")
    save_figure(figure, *paths)


def _table(observed: Sequence[dict[str, Any]], layers: Sequence[str], key: str) -> npt.NDArray[np.float64]:
    values = np.full((len(layers), len(observed)), np.nan)
    for column, record in enumerate(observed):
        for row, layer in enumerate(layers):
            value = record["layers"].get(layer, {}).get(key)
            values[row, column] = np.nan if value is None else value
    return values


def _median(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.array(
        [np.median(column[~np.isnan(column)]) if not np.isnan(column).all() else np.nan for column in values.T]
    )


def _draw_map(
    figure: Figure, axes: Axes, iterations: npt.NDArray[np.float64], values: npt.NDArray[np.float64], title: str
) -> None:
    """Draw a row a layer; what is exactly 0 is black, what is not known is white."""
    from matplotlib import colormaps

    with np.errstate(divide="ignore"):
        logs = np.log10(values)
    finite = logs[np.isfinite(logs)]
    # Noise of a step in float32, or a tail of 40 decades, would leave one colour to all others.
    high = finite.max() if len(finite) else 0.0
    low = max(finite.min(), high - 20) if len(finite) else -1.0
    steps = np.diff(iterations)
    step = steps[-1] if len(steps) else 1.0
    edges = np.append(iterations, iterations[-1] + step)
    cmap = colormaps["viridis"].with_extremes(under="black", bad="white")
    shown = np.ma.masked_invalid(np.where(np.isneginf(logs), low - 100, logs))
    mesh = axes.pcolormesh(
        edges, np.arange(len(values) + 1) - 0.5, shown, cmap=cmap, vmin=low, vmax=max(high, low + 0.1), rasterized=True
    )
    axes.set(title=title, ylim=(len(values) - 0.5, -0.5))
    figure.colorbar(mesh, ax=axes, extend="min", label="black: under the scale, or 0")


def _draw_line(axes: Axes, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], title: str) -> None:
    axes.plot(x, np.where(y > 0, y, np.nan), color="#202020", linewidth=1.2, marker="." if len(x) < 50 else None)
    axes.set(title=title, xlabel="iteration", yscale="log")
    axes.grid(alpha=0.3)


def _mark(figure: Figure, axes: Axes, verdicts: Sequence[dict[str, Any]], layers: Sequence[str]) -> None:
    """Put a cross where each verdict begins; those of no layer of the figure stand under it."""
    for kind in dict.fromkeys(verdict["kind"] for verdict in verdicts):
        own = [verdict for verdict in verdicts if verdict["kind"] == kind]
        rows = [layers.index(each["layer"]) if each["layer"] in layers else len(layers) - 0.5 for each in own]
        axes.scatter(
            [each["since"] for each in own], rows, s=70, marker="X", color=COLORS.get(kind, "#000000"),
            edgecolors="white", linewidths=0.8, clip_on=False, zorder=5, label=kind,
        )  # fmt: skip
    if verdicts:
        figure.legend(
            loc="upper left", fontsize=8, ncols=len(COLORS), title="verdicts, where they begin", title_fontsize=8
        )
