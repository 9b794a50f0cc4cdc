"""Table and figure of a segmentation result."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cvplugins.metrics import SegmentationResult

from .confusion_matrix import draw_confusion_matrix
from .figures import new_figure, save_figure
from .names import LINE_LENGTH, fit_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_segmentation_figure", "segmentation_table"]


def segmentation_table(result: SegmentationResult) -> str:
    """Return a table for the log: a line a class, the mean and the measures of all pixels below; per cent.

    No line is longer than 120 characters; a class name that is too long is cut. ``B-`` means boundary. Classes that are
    neither labelled nor predicted are counted, not listed.

    Args:
        result: What :meth:`cvplugins.metrics.SegmentationMetric.compute` returned. ``-`` stands for undefined.
    """
    # Recall is mmseg's class accuracy, which has a column already.
    columns = {name: values for name, values in result.per_class().items() if name != "Recall"}
    scalars = result.scalars()
    heads = {name: name.replace("Boundary", "B-") for name in columns}
    cells = {name: max(8, len(head) + 2) for name, head in heads.items()}
    names = fit_names((*result.classes, "class"), LINE_LENGTH - 14 - sum(cells.values()))
    width = max(map(len, names))

    def row(title: str, pixels: int, values: dict[str, float]) -> str:
        return f"{title:<{width}}{pixels:>14}" + "".join(
            f"{'-' if np.isnan(value) else format(100 * value, '.2f'):>{cells[name]}}" for name, value in values.items()
        )

    labelled = result.confusion.sum(axis=1)
    lines = [f"{'class':<{width}}{'pixels':>14}" + "".join(f"{head:>{cells[name]}}" for name, head in heads.items())]
    occurring = _occurring(result)
    for index in occurring:
        lines.append(row(names[index], labelled[index], {key: values[index] for key, values in columns.items()}))
    if absent := len(result.classes) - len(occurring):
        lines.append(f"neither labelled nor predicted: {absent} of {len(result.classes)} classes")
    lines.append(row("mean", labelled.sum(), {name: scalars.get(f"m{name}", np.nan) for name in columns}))
    overall = {"pixel accuracy": "aAcc", "frequency-weighted IoU": "fwIoU", "kappa": "kappa"}
    lines.append(
        ", ".join(f"{title} {100 * scalars[name]:.2f}" for title, name in overall.items() if name in scalars)
        or "no pixel is labelled"
    )
    return "\n".join(lines)


def draw_segmentation_figure(result: SegmentationResult, *paths: str | os.PathLike[str]) -> None:
    """Draw IoU per class and the confusion matrix of the classes that occur, large enough to read every one.

    Args:
        result: What :meth:`cvplugins.metrics.SegmentationMetric.compute` returned.
        paths: Where to; the suffix is the format: ``.png``, ``.svg`` or another one of matplotlib's. An old file is
            replaced only by a whole new one.

    Raises:
        ImportError: matplotlib is not installed.
    """
    occurring = _occurring(result)
    shown = occurring if len(occurring) else np.arange(len(result.classes))
    side = max(5.0, 0.16 * len(shown))  # inches of the matrix
    figure = new_figure(8.0 + 1.05 * side, 1.6 + side)
    bars, matrix = figure.subplots(1, 2, width_ratios=(5.5, 1 + 1.05 * side))
    _draw_bars(bars, result)
    draw_confusion_matrix(matrix, result.confusion[np.ix_(shown, shown)], [result.classes[index] for index in shown])
    scalars = result.scalars()
    names = [name for name in ("mIoU", "mAcc", "aAcc", "mBoundaryIoU", "mBoundaryF1") if name in scalars]
    title = ", ".join(f"{name} {100 * scalars[name]:.2f}" for name in names)
    figure.suptitle(
        f"{result.num_images} images, {result.confusion.sum():,} pixels: {title or 'nothing labelled'}",
        size=max(12, side),
    )
    save_figure(figure, *paths)


def _occurring(result: SegmentationResult) -> NDArray[np.int64]:
    """Return the classes that are labelled or predicted."""
    return np.flatnonzero(result.confusion.sum(axis=1) + result.confusion.sum(axis=0))


def _draw_bars(axes: Axes, result: SegmentationResult) -> None:
    order = [int(index) for index in np.argsort(result.iou, kind="stable") if not np.isnan(result.iou[index])]
    rows = np.arange(len(order))
    iou = 100 * result.iou[order]
    axes.barh(rows, iou, height=0.8, color="#4878a8", label="IoU")
    if result.boundary_iou is not None:
        axes.barh(rows, 100 * result.boundary_iou[order], height=0.35, color="#e0a030", label="boundary IoU")
        axes.legend(loc="lower right", fontsize=8)
    for row, value in enumerate(iou):
        axes.text(float(value) + 0.8, row, f"{value:.1f}", va="center", size=8)
    labelled = result.confusion.sum(axis=1)
    share = [f"{100 * each / labelled.sum():.1f}" if each else "none" for each in labelled]
    axes.set_yticks(rows, [f"{result.classes[index]} ({share[index]})" for index in order], size=8)
    axes.set(
        xlim=(0, 108),
        ylim=(-0.6, max(len(order), 1) - 0.4),
        xlabel="IoU (%); share of the labelled pixels (%) in brackets",
    )
    axes.grid(axis="x", alpha=0.3)
