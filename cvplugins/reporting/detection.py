"""Table and figures of a detection result."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from cvplugins.metrics import DetectionResult, RuleResult

from .confusion_matrix import confusion_size, draw_confusion_matrix
from .figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "detection_table",
    "draw_detection_confusion_figure",
    "draw_detection_errors_figure",
    "draw_detection_figure",
]

ERROR_COLORS = {
    "true positives": "#4878a8",
    "localisation": "#e0a030",
    "classification": "#b04a5a",
    "duplicate": "#8064a2",
    "background": "#9a9a9a",
    "classification_and_localisation": "#d08a70",
    "missed": "#ffffff",
}


def detection_table(result: DetectionResult) -> str:
    """Return a table for the log: a line a class, the mean below; per cent, ``-`` where undefined.

    Args:
        result: What :meth:`cvplugins.metrics.DetectionMetric.compute` returned.
    """
    columns: dict[str, np.ndarray] = {}
    for numbers in result.rules.values():
        per_class = numbers.per_class()
        at_one_iou = [name for name in per_class if name.removeprefix("AP").replace(".", "").isdigit()]
        headline = numbers.headline
        for name in (headline, f"{headline}_11point", f"{headline}_area", *at_one_iou, "AR100"):
            if name in per_class and name not in columns:
                columns[name] = per_class[name]
    points = result.operating_points.per_class()
    columns |= {name: points[name] for name in ("precision", "recall", "F1", "best_F1")}
    width = max(len(name) for name in (*result.classes, "class"))
    widths = {name: max(8, len(name) + 2) for name in columns}

    def row(title: str, truths: int | str, detections: int | str, values: dict[str, str]) -> str:
        cells = "".join(f"{value:>{widths[name]}}" for name, value in values.items())
        return f"{title:<{width}}{truths:>9}{detections:>12}{cells}"

    lines = [row("class", "objects", "detections", {name: name for name in columns})]
    for index, name in enumerate(result.classes):
        counts = int(result.num_truths[index]), int(result.num_detections[index])
        lines.append(row(name, *counts, {key: _percent(values[index]) for key, values in columns.items()}))
    scalars = result.scalars()
    means = {name: _percent(scalars.get(name, np.nan)) for name in columns}
    lines.append(row("mean", int(result.num_truths.sum()), int(result.num_detections.sum()), means))
    if "FPPI" in scalars:
        points_at = f"at scores of at least {result.operating_points.score_threshold:g}"
        lines.append(f"precision, recall and F1 {points_at}; {scalars['FPPI']:.2f} false positives an image")
    return "\n".join(lines)


def draw_detection_figure(result: DetectionResult, *paths: str | os.PathLike[str]) -> None:
    """Draw average precision per class by the first two rules, and the first one's precision-recall curves.

    Args:
        result: What :meth:`cvplugins.metrics.DetectionMetric.compute` returned.
        paths: Where to; the suffix is the format: ``.png``, ``.svg`` or another one of matplotlib's. An old file is
            replaced only by a whole new one.

    Raises:
        ImportError: matplotlib is not installed.
    """
    defined = [index for index in range(len(result.classes)) if result.num_truths[index]]
    figure = new_figure(13, max(4.5, 1.2 + 0.22 * len(defined)))
    bars, curves = figure.subplots(1, 2, width_ratios=(1, 1.25))
    number = _own_number(result.first_rule)
    order = sorted(defined, key=lambda index: float(number[index]))
    _draw_bars(bars, result, order)
    _draw_curves(curves, result, order[::-1])
    scalars = result.scalars()
    wanted = dict.fromkeys((result.first_rule.headline, "AP", "AP50", "AP50_11point", "AP75"))
    names = [name for name in wanted if name in scalars]
    title = ", ".join(f"{name} {100 * scalars[name]:.1f}" for name in names)
    figure.suptitle(f"{result.num_images} images, {int(result.num_truths.sum())} objects: {title or 'nothing to find'}")
    save_figure(figure, *paths)


def draw_detection_errors_figure(result: DetectionResult, *paths: str | os.PathLike[str]) -> None:
    """Draw F1 against the score threshold, and what became of the detections and objects of each class.

    Args:
        result: What :meth:`cvplugins.metrics.DetectionMetric.compute` returned.
        paths: As for :func:`draw_detection_figure`.
    """
    counts = result.errors.counts
    shown = [i for i in range(len(result.classes)) if result.num_truths[i] or counts[:, i].any()]
    figure = new_figure(13, max(4.5, 1.2 + 0.22 * len(shown)))
    f1, errors = figure.subplots(1, 2)
    _draw_f1(f1, result)
    _draw_errors(errors, result, shown)
    save_figure(figure, *paths)


def draw_detection_confusion_figure(result: DetectionResult, *paths: str | os.PathLike[str]) -> None:
    """Draw the confusion matrix with the background as its last row and column, readable at hundreds of classes.

    Args:
        result: What :meth:`cvplugins.metrics.DetectionMetric.compute` returned.
        paths: As for :func:`draw_detection_figure`.
    """
    names = [*result.classes, "background"]
    side = confusion_size(len(names))
    figure = new_figure(side + 1, side)
    axes = figure.subplots()
    draw_confusion_matrix(axes, result.errors.confusion, names)
    axes.set_title(f"detections with a score of at least {result.operating_points.score_threshold:g}")
    save_figure(figure, *paths)


def _own_number(rule: RuleResult) -> np.ndarray:
    return rule.per_class()[rule.headline]


def _draw_bars(axes: Axes, result: DetectionResult, order: list[int]) -> None:
    rows = np.arange(len(order))
    styles = ((0.8, "#4878a8"), (0.35, "#e0a030"))
    for rule, (height, color) in zip(result.rules.values(), styles, strict=False):
        label = f"{rule.headline} ({rule.rule.name})"
        axes.barh(rows, 100 * _own_number(rule)[order], height=height, color=color, label=label)
    for row, index in enumerate(order):
        value = 100 * float(_own_number(result.first_rule)[index])
        axes.text(value + 0.8, row, f"{value:.1f}", va="center", size=8)
    axes.set_yticks(rows, [f"{result.classes[index]} ({result.num_truths[index]})" for index in order], size=8)
    axes.set(xlim=(0, 108), ylim=(-0.6, len(order) - 0.4), xlabel="average precision (%); objects in brackets")
    axes.grid(axis="x", alpha=0.3)
    if order:
        axes.legend(loc="lower right", fontsize=8)


def _draw_curves(axes: Axes, result: DetectionResult, order: list[int]) -> None:
    for place, index in enumerate(order):
        curve = result.curves[index].corners()
        recall, precision = curve.recall, curve.precision
        if len(recall):  # from the axis on, at the precision of the first object found
            recall, precision = np.append(0, recall), np.append(precision[0], precision)
        number = 100 * _own_number(result.first_rule)[index]
        label = f"{result.classes[index]} {number:.1f}" if place < 40 else None
        axes.plot(100 * recall, 100 * precision, linewidth=1.3, label=label, **_style(index))
    threshold = result.first_rule.rule.iou_thresholds[0]
    axes.set(xlim=(0, 101), ylim=(0, 102), xlabel="recall (%)", ylabel="precision (%)", title=f"IoU {threshold:g}")
    axes.grid(alpha=0.3)
    if order:
        columns = 1 + len(order[:40]) // 21
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, ncols=columns, frameon=False)


def _draw_f1(axes: Axes, result: DetectionResult) -> None:
    points = result.operating_points
    order = np.argsort(-np.nan_to_num(points.best_f1), kind="stable")
    place = 0
    for index in order:
        curve = result.curves[index]
        if not result.num_truths[index] or not len(curve.score):
            continue
        total = curve.precision + curve.recall
        f1 = 2 * curve.precision * curve.recall / np.where(total > 0, total, 1)
        last = np.append(curve.score[1:] != curve.score[:-1], True)  # a threshold takes all equal scores
        best = f"{result.classes[index]} {100 * points.best_f1[index]:.1f} at {points.best_score[index]:.2f}"
        label = best if place < 20 else None
        axes.step(curve.score[last], 100 * f1[last], where="pre", linewidth=1.2, label=label, **_style(index))
        place += 1
    axes.axvline(points.score_threshold, color="black", linewidth=0.8, linestyle=":")
    axes.set(ylim=(0, 102), xlabel="score threshold", ylabel="F1 (%)", title="best F1 and its score in the legend")
    axes.grid(alpha=0.3)
    if place:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)


def _draw_errors(axes: Axes, result: DetectionResult, shown: list[int]) -> None:
    kinds = {"true positives": result.operating_points.true_positives} | result.errors.per_class()
    order = sorted(shown, key=lambda index: int(result.num_truths[index]))
    rows, left = np.arange(len(order)), np.zeros(len(order))
    for name, values in kinds.items():
        label = f"{name.replace('_', ' ')} ({values.sum():,})"
        edge = "#808080" if name == "missed" else "none"
        axes.barh(rows, values[order], left=left, color=ERROR_COLORS[name], edgecolor=edge, height=0.8, label=label)
        left += values[order]
    axes.set_yticks(rows, [f"{result.classes[index]} ({result.num_truths[index]})" for index in order], size=8)
    axes.set(
        ylim=(-0.6, max(len(order), 1) - 0.4),
        xlabel="detections and missed objects",
        title=f"errors at a score of at least {result.operating_points.score_threshold:g}",
    )
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)


def _style(index: int) -> dict[str, Any]:
    from matplotlib import colormaps

    # 20 colours and 4 line styles tell 80 classes apart; beyond that they repeat.
    colors = colormaps["tab20"].colors  # type: ignore[attr-defined]
    return {"color": colors[index % 20], "linestyle": ("-", "--", ":", "-.")[index // 20 % 4]}


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.1f}"
