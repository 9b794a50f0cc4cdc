"""Table and figures of a classification result."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cvplugins.metrics import ClassificationResult, PrecisionRecallCurve, RocCurve
from cvplugins.metrics.matching import Floats

from .confusion_matrix import confusion_size, draw_confusion_matrix
from .figures import new_figure, save_figure
from .names import LINE_LENGTH, fit_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["classification_table", "draw_classification_figure", "draw_confusion_figure", "draw_rates_figure"]

MOST_ROWS = 50
MOST_CURVES = 20
MOST_BARS = 150


def classification_table(result: ClassificationResult) -> str:
    """Return a table for the log: a line a class, the means below; per cent, ``-`` where undefined.

    Of more than 50 classes, the 50 of the lowest F1 are shown. No line is longer than 120 characters; a class name
    that is too long is cut.

    Args:
        result: What :meth:`cvplugins.metrics.ClassificationMetric.compute` returned.
    """
    rates = {**result.rates, **result.areas}
    names = fit_names((*result.classes, "weighted"), LINE_LENGTH - 12 * (1 + len(rates)))
    width = max(map(len, names))
    lines = [f"{'class':<{width}}" + "".join(f"{name:>12}" for name in ("samples", *rates))]
    rows = list(range(len(result.classes)))
    if len(rows) > MOST_ROWS:
        rows = sorted(np.argsort(result.rates["F1"].per_class)[:MOST_ROWS].tolist())  # NaN comes last
        lines.insert(0, f"the {MOST_ROWS} of {len(result.classes)} classes with the lowest F1")
    for row in rows:
        lines.append(
            f"{names[row]:<{width}}{result.support[row]:>12}"
            + "".join(_percent(rate.per_class[row]) for rate in rates.values())
        )
    scalars = result.scalars()
    for label, suffix in [("mean", ""), ("weighted", "_weighted"), ("micro", "_micro")]:
        values = [scalars.get(f"{name}{suffix}", np.nan) for name in rates]
        if not np.isnan(values).all():
            lines.append(f"{label:<{width}}{result.num_samples:>12}" + "".join(_percent(value) for value in values))
    return "\n".join(lines)


def draw_classification_figure(result: ClassificationResult, *paths: str | os.PathLike[str]) -> None:
    """Draw ROC and precision-recall curves, the reliability diagram, and F1 against the threshold.

    Of more than 20 classes, the curves of the 20 with the lowest average precision are drawn.

    Args:
        result: What :meth:`cvplugins.metrics.ClassificationMetric.compute` returned.
        paths: Where to; the suffix is the format: ``.png``, ``.svg`` or another one of matplotlib's. An old file is
            replaced only by a whole new one.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(13, 10)
    (roc, precision_recall), (reliability, f1) = figure.subplots(2, 2)
    drawn = [index for index, curve in enumerate(result.precision_recall) if len(curve.score)]
    chosen = sorted(drawn, key=lambda index: float(result.average_precision[index]))[:MOST_CURVES]
    _draw_roc(roc, result, chosen)
    _draw_precision_recall(precision_recall, result, chosen)
    _draw_reliability(reliability, result)
    _draw_f1(f1, result, chosen)
    shown = ("top1", "top5", "accuracy", "F1", "AUC", "AP")
    scalars = result.scalars()
    title = ", ".join(f"{name} {100 * scalars[name]:.1f}" for name in shown if name in scalars)
    rest = f"; curves of the {len(chosen)} classes with the lowest AP" if len(chosen) < len(drawn) else ""
    figure.suptitle(f"{result.num_samples} samples: {title or 'nothing to show'}{rest}")
    save_figure(figure, *paths)


def draw_confusion_figure(result: ClassificationResult, *paths: str | os.PathLike[str]) -> None:
    """Draw the confusion matrix of a multi-class or binary result.

    Args:
        result: What :meth:`cvplugins.metrics.ClassificationMetric.compute` returned.
        paths: As for :func:`draw_classification_figure`.

    Raises:
        ValueError: The result is multi-label, where a sample has no single true class.
        ImportError: matplotlib is not installed.
    """
    if result.task == "multilabel":
        raise ValueError("a multi-label result has no confusion of one class with another; see draw_rates_figure")
    classes = (f"not {result.classes[0]}", *result.classes) if result.task == "binary" else result.classes
    side = confusion_size(len(classes))
    figure = new_figure(side + 1, side)
    draw_confusion_matrix(figure.subplots(), result.confusion, classes)
    save_figure(figure, *paths)


def draw_rates_figure(result: ClassificationResult, *paths: str | os.PathLike[str]) -> None:
    """Draw precision, recall and F1 of each class, in falling order of F1; of more than 150, the lowest 150.

    Args:
        result: What :meth:`cvplugins.metrics.ClassificationMetric.compute` returned.
        paths: As for :func:`draw_classification_figure`.

    Raises:
        ImportError: matplotlib is not installed.
    """
    f1 = result.rates["F1"].per_class
    order = np.argsort(f1, kind="stable")[: min(MOST_BARS, int((~np.isnan(f1)).sum()))]
    figure = new_figure(8, max(3, 1.2 + 0.2 * len(order)))
    axes = figure.subplots()
    rows = np.arange(len(order))
    axes.barh(rows, 100 * f1[order], height=0.8, color="#b9cfe4", label="F1")
    for name, marker, color in (("precision", ">", "#c44e52"), ("recall", "o", "#2f6b3a")):
        axes.plot(100 * result.rates[name].per_class[order], rows, marker, color=color, markersize=4, label=name)
    axes.set_yticks(rows, [f"{result.classes[index]} ({result.support[index]})" for index in order], size=8)
    axes.set(xlim=(0, 102), ylim=(-0.7, max(len(order), 1) - 0.3), xlabel="per cent; samples in brackets")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=8, frameon=False)
    save_figure(figure, *paths)


def _draw_roc(axes: Axes, result: ClassificationResult, chosen: Sequence[int]) -> None:
    for place, index in enumerate(chosen):
        false, true, _ = _thinned(result.roc[index])
        axes.plot(100 * false, 100 * true, **_line(place), label=_label(result, index, result.roc_auc))
    axes.plot([0, 100], [0, 100], ":", color="0.6", linewidth=1)
    axes.set(title="ROC, one class against the rest (AUC)", xlabel="false positive rate (%)")
    _finish(axes, "true positive rate = recall (%)", "lower right", chosen)


def _draw_precision_recall(axes: Axes, result: ClassificationResult, chosen: Sequence[int]) -> None:
    for place, index in enumerate(chosen):
        precision, recall, _ = _thinned(result.precision_recall[index])
        recall, precision = np.append(0, recall), np.append(precision[0], precision)
        style = _line(place) | {"drawstyle": "steps-pre"}
        axes.plot(100 * recall, 100 * precision, **style, label=_label(result, index, result.average_precision))
    axes.set(title="precision and recall (AP)", xlabel="recall (%)")
    _finish(axes, "precision (%)", "best", chosen)


def _draw_f1(axes: Axes, result: ClassificationResult, chosen: Sequence[int]) -> None:
    for place, index in enumerate(chosen):
        precision, recall, score = _thinned(result.precision_recall[index])
        axes.plot(score, 200 * precision * recall / (precision + recall), **_line(place))
        best = float(result.best_f1[index])
        label = f"{result.classes[index]} {100 * best:.1f} at {result.best_threshold[index]:.3g}"
        axes.plot(result.best_threshold[index], 100 * best, "o", color=_line(place)["color"], label=label)
    axes.set(title="F1 against the threshold (best F1)", xlabel="threshold")
    _finish(axes, "F1 (%)", "best", chosen)
    axes.set_xlim(auto=True)
    axes.autoscale(axis="x")


def _draw_reliability(axes: Axes, result: ClassificationResult) -> None:
    curve = result.calibration
    bins = len(curve.decisions)
    left = 100 * np.arange(bins) / bins
    total = max(int(curve.decisions.sum()), 1)
    axes.bar(left, 100 * curve.accuracy, 100 / bins, align="edge", color="#b9cfe4", edgecolor="white", label="right")
    axes.stairs(100 * curve.decisions / total, np.append(left, 100), color="0.4", label="share of decisions")
    axes.plot(100 * curve.confidence, 100 * curve.accuracy, "o-", color="#c44e52", markersize=4, label="mean of a bin")
    axes.plot([0, 100], [0, 100], ":", color="0.6", linewidth=1)
    ece, mce = 100 * curve.expected_error(), 100 * curve.maximum_error()
    defined = "no probabilities" if np.isnan(ece) else f"ECE {ece:.2f} %, MCE {mce:.1f} %"
    axes.set(title=f"reliability: {defined}", xlabel="confidence (%)")
    _finish(axes, "per cent", "upper left", [0])


def _finish(axes: Axes, ylabel: str, legend: str, chosen: Sequence[int]) -> None:
    axes.set(xlim=(0, 100.5), ylim=(0, 101.5), ylabel=ylabel)
    axes.grid(alpha=0.3)
    if chosen:
        axes.legend(loc=legend, fontsize=7, ncols=1 + (len(chosen) > 12), framealpha=0.7)


def _label(result: ClassificationResult, index: int, area: Floats) -> str:
    return f"{result.classes[index]} {_percent(area[index]).strip()}"


def _line(place: int) -> dict[str, Any]:
    from matplotlib import colormaps

    colors: Any = colormaps["tab10"]
    return {"color": colors.colors[place % 10], "linestyle": ("-", "--")[place // 10 % 2], "linewidth": 1.3}


def _thinned(curve: RocCurve | PrecisionRecallCurve) -> Iterator[Floats]:
    """Yield the fields at no more points than a figure shows."""
    length = len(curve.score)
    kept = np.unique(np.linspace(0, max(length - 1, 0), min(length, 2000)).astype(np.int64))
    return (values[kept] for values in curve)


def _percent(value: float) -> str:
    return f"{'-':>12}" if np.isnan(value) else f"{100 * value:>12.1f}"
