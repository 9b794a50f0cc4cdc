"""Table and figure of a detection result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cvplugins.files import write_whole
from cvplugins.metrics import DetectionResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["detection_table", "draw_detection_figure"]


def detection_table(result: DetectionResult) -> str:
    """Return a table for the log: a line a class, the mean below; per cent, ``-`` where undefined.

    Args:
        result: What :meth:`cvplugins.metrics.DetectionMetric.compute` returned.
    """
    width = max(len(name) for name in (*result.classes, "class"))
    head = ("objects", "detections", "AP50", "11point", "AP", "AP75", "AR100")
    lines = [f"{'class':<{width}}" + "".join(f"{name:>12}" for name in head)]
    columns = (result.voc_area, result.voc_11point, result.coco_ap.mean(axis=0), result.coco_ap[5], result.coco_ar[2])
    for index, name in enumerate(result.classes):
        counts = f"{result.num_truths[index]:>12}{result.num_detections[index]:>12}"
        lines.append(f"{name:<{width}}{counts}" + "".join(_percent(column[index]) for column in columns))
    totals = f"{result.num_truths.sum():>12}{result.num_detections.sum():>12}"
    scalars = result.scalars()
    means = (scalars.get(name, np.nan) for name in ("AP50", "AP50_11point", "AP", "AP75", "AR100"))
    lines.append(f"{'mean':<{width}}{totals}" + "".join(_percent(mean) for mean in means))
    return "\n".join(lines)


def draw_detection_figure(result: DetectionResult, path: str | os.PathLike[str]) -> None:
    """Draw AP per class and the precision-recall curves at IoU 0.5, and write them as PNG.

    Args:
        result: What :meth:`cvplugins.metrics.DetectionMetric.compute` returned.
        path: Where to; an old file is replaced only by a whole new one.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install matplotlib") from error
    defined = [index for index in range(len(result.classes)) if result.num_truths[index]]
    height = max(4.5, 1.2 + 0.22 * len(defined))
    figure = Figure(figsize=(13, height), layout="constrained")
    bars, curves = figure.subplots(1, 2, width_ratios=(1, 1.25))
    order = sorted(defined, key=lambda index: float(result.voc_area[index]))
    _draw_bars(bars, result, order)
    _draw_curves(curves, result, order[::-1])
    scalars = result.scalars()
    title = ", ".join(f"{name} {100 * scalars[name]:.1f}" for name in ("AP50", "AP50_11point", "AP") if name in scalars)
    figure.suptitle(f"{result.num_images} images, {int(result.num_truths.sum())} objects: {title or 'nothing to find'}")
    with write_whole(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def _draw_bars(axes: Axes, result: DetectionResult, order: list[int]) -> None:
    rows = np.arange(len(order))
    axes.barh(rows, 100 * result.voc_area[order], height=0.8, color="#4878a8", label="AP50 (VOC area)")
    axes.barh(rows, 100 * result.coco_ap[:, order].mean(axis=0), height=0.35, color="#e0a030", label="AP (COCO)")
    for row, index in enumerate(order):
        axes.text(
            100 * float(result.voc_area[index]) + 0.8, row, f"{100 * result.voc_area[index]:.1f}", va="center", size=8
        )
    axes.set_yticks(rows, [f"{result.classes[index]} ({result.num_truths[index]})" for index in order], size=8)
    axes.set(xlim=(0, 108), ylim=(-0.6, len(order) - 0.4), xlabel="average precision (%); objects in brackets")
    axes.grid(axis="x", alpha=0.3)
    if order:
        axes.legend(loc="lower right", fontsize=8)


def _draw_curves(axes: Axes, result: DetectionResult, order: list[int]) -> None:
    from matplotlib import colormaps

    # 20 colours and 4 line styles tell 80 classes apart; beyond that they repeat.
    colors, styles = colormaps["tab20"].colors, ("-", "--", ":", "-.")  # type: ignore[attr-defined]
    for place, index in enumerate(order):
        curve = result.curves[index].corners()
        recall, precision = curve.recall, curve.precision
        if len(recall):  # from the axis on, at the precision of the first object found
            recall, precision = np.append(0, recall), np.append(precision[0], precision)
        axes.plot(
            100 * recall,
            100 * precision,
            color=colors[index % 20],
            linestyle=styles[index // 20 % 4],
            linewidth=1.3,
            label=f"{result.classes[index]} {100 * result.voc_area[index]:.1f}" if place < 40 else None,
        )
    axes.set(xlim=(0, 101), ylim=(0, 102), xlabel="recall (%)", ylabel="precision (%)", title="IoU 0.5")
    axes.grid(alpha=0.3)
    if order:
        columns = 1 + len(order[:40]) // 21
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, ncols=columns, frameon=False)


def _percent(value: float) -> str:
    return f"{'-':>12}" if np.isnan(value) else f"{100 * value:>12.1f}"
