"""Table and figure of a tracking result."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from cvplugins.metrics import TrackingResult
from cvplugins.metrics.hota import ALPHAS

from .figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_tracking_figure", "tracking_table"]

SHARES = ("HOTA", "DetA", "AssA", "LocA", "MOTA", "MOTP", "IDF1", "Recall", "Precision")
NUMBERS = ("IDSW", "Frag", "FP", "FN", "MT", "PT", "ML")
MISSED = (0.85, 0.85, 0.85)
MOST_TRACKS = 60  # rows of the timeline that can be told apart


def tracking_table(result: TrackingResult) -> str:
    """Return a table for the log: a line a sequence, a class and all together; shares in per cent.

    Args:
        result: What :meth:`cvplugins.metrics.TrackingMetric.compute` returned. ``-`` stands for undefined.
    """
    counts = result.frames.tolist()
    rows = [(str(name), count, result.measures(name)) for name, count in zip(result.sequences, counts, strict=True)]
    total = sum(counts)
    if len(result.classes) > 1:
        rows += [(f"all, {label}", total, result.measures(label=label)) for label in result.classes]
    rows.append(("all", total, result.measures()))
    timed = any(not np.isnan(values["FPS"]) for *_, values in rows)
    width = max(len("sequence"), *(len(title) for title, *_ in rows))
    columns = [*SHARES, *NUMBERS, *(["FPS"] if timed else [])]
    lines = [f"{'sequence':<{width}}{'frames':>8}" + "".join(f"{name:>{_width(name)}}" for name in columns)]
    for title, count, values in rows:
        cells = "".join(f"{_cell(name, values[name]):>{_width(name)}}" for name in columns)
        lines.append(f"{title:<{width}}{count:>8}{cells}")
    return "\n".join(lines)


def draw_tracking_figure(
    result: TrackingResult, *paths: str | os.PathLike[str], sequence: int | str | None = None
) -> None:
    """Draw HOTA and its parts over the IoU threshold, and who was matched to whom in one sequence.

    Args:
        result: What :meth:`cvplugins.metrics.TrackingMetric.compute` returned.
        paths: Where to; the suffix is the format: ``.png``, ``.svg`` or another one of matplotlib's. An old file is
            replaced only by a whole new one.
        sequence: The sequence for the timeline; the one with most identity switches if None.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is no such sequence.
    """
    if sequence is None and result.sequences:
        sequence = result.sequences[int(result.clear.idsw.sum(axis=1).argmax())]
    figure = new_figure(14, 6)
    curves, timeline = figure.subplots(1, 2, width_ratios=(1, 1.6))
    _draw_curves(curves, result)
    if sequence is None:
        timeline.set_axis_off()
    else:
        result.measures(sequence)  # names the sequences if this is none of them
        _draw_timeline(timeline, result, sequence)
    measures = result.measures()
    title = ", ".join(f"{name} {_cell(name, measures[name])}" for name in ("HOTA", "MOTA", "IDF1", "IDSW"))
    figure.suptitle(f"{len(result.sequences)} sequences, {int(result.frames.sum())} frames: {title}")
    save_figure(figure, *paths)


def _draw_curves(axes: Axes, result: TrackingResult) -> None:
    curves = result.curves()
    styles = {"HOTA": ("#202020", "-", 2.5), "DetA": ("#4878a8", "--", 1.5)}
    styles |= {"AssA": ("#e0a030", "-.", 1.5), "LocA": ("#60a060", ":", 1.5)}
    for name, (color, style, width) in styles.items():
        label = f"{name} {_cell(name, float(curves[name].mean()))}"
        axes.plot(ALPHAS, 100 * curves[name], color=color, linestyle=style, linewidth=width, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 102), xlabel="IoU threshold", ylabel="%", title="HOTA and its parts, all sequences")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", fontsize=9, title="mean")


def _draw_timeline(axes: Axes, result: TrackingResult, sequence: int | str) -> None:
    """Draw a row for each true track: a colour for each track matched to it, grey where none was."""
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    line = result.timeline
    own = np.flatnonzero(line.sequence == result.sequences.index(sequence))
    tracks, row = np.unique(np.stack([line.label[own], line.truth_id[own]]), axis=1, return_inverse=True)
    row = row.reshape(-1)
    lengths = np.bincount(row, minlength=tracks.shape[1])
    shown = np.sort(np.argsort(-lengths, kind="stable")[:MOST_TRACKS])
    place = np.full(tracks.shape[1], -1)
    place[shown] = np.arange(len(shown))
    order = np.lexsort((line.frame[own], row))
    own, y = own[order], place[row[order]]
    own, y = own[y >= 0], y[y >= 0]
    # Neighbours in a row with the same match are one bar.
    key = np.stack([y, np.where(line.matched[own], line.id[own], 0), line.matched[own]])
    breaks = (np.diff(key, axis=1) != 0).any(axis=0) | (np.diff(line.frame[own]) > 1)
    starts = np.flatnonzero(np.concatenate([[True], breaks])) if len(own) else np.zeros(0, np.int64)
    ends = np.append(starts[1:], len(own)) - 1
    spans = [
        [(line.frame[own[start]] - 0.5, y[start]), (line.frame[own[end]] + 0.5, y[start])]
        for start, end in zip(starts, ends, strict=True)
    ]
    # Without its two greys, which would look missed. 18 colours repeat, rarely in one row.
    palette = np.delete(colormaps["tab20"].colors, (14, 15), axis=0)  # type: ignore[attr-defined]
    _, color = np.unique(line.id[own[starts]], return_inverse=True)
    matched = line.matched[own[starts]]
    colors = [palette[index % 18] if hit else MISSED for index, hit in zip(color, matched, strict=True)]
    thickness = min(10.0, 260 / max(len(shown), 1))
    axes.add_collection(LineCollection(spans, colors=colors, linewidths=thickness, capstyle="butt"))
    names = [str(tracks[1, index]) for index in shown]
    if len(result.classes) > 1:
        names = [f"{result.classes[tracks[0, index]]} {name}" for index, name in zip(shown, names, strict=True)]
    axes.set_yticks(range(len(shown)), names, size=min(8.0, 320 / max(len(shown), 1)))
    axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel="frame", ylabel="true track")
    axes.autoscale(axis="x")
    some = f" (the {len(shown)} longest of {tracks.shape[1]} tracks)" if len(shown) < tracks.shape[1] else ""
    axes.set_title(f"{sequence}{some}: a colour a matched track, grey where missed", size=11)


def _width(name: str) -> int:
    return max(7, len(name) + 2)


def _cell(name: str, value: float) -> str:
    if np.isnan(value):
        return "-"
    if name in NUMBERS:
        return f"{value:.0f}"
    return f"{value if name == 'FPS' else 100 * value:.1f}"
