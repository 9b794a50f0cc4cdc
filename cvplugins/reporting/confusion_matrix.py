"""A confusion matrix that can be read at 2 classes and at 150."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["confusion_size", "draw_confusion_matrix"]

MOST_NAMES = 200
MOST_NUMBERS = 20


def confusion_size(num_classes: int) -> float:
    """Return how many inches a side of the figure needs for names 5 points high: 6 to 30."""
    return float(np.clip(3 + 0.13 * num_classes, 6, 30))


def draw_confusion_matrix(axes: Axes, matrix: NDArray[np.integer[Any]], classes: Sequence[str]) -> None:
    """Draw what became of each true class, in per cent of its row.

    Up to 20 classes the cells hold their numbers; beyond 200, only some classes are named. Colours follow the square
    root, so that rare confusions are seen.

    Args:
        axes: Where to; :func:`confusion_size` says how large the figure should be.
        matrix: Counts by true (row) and predicted class, ``(C, C)``.
        classes: Their names.
    """
    from matplotlib.colors import PowerNorm

    total = matrix.sum(axis=1, keepdims=True)
    share = 100 * np.divide(matrix, total, out=np.full(matrix.shape, np.nan), where=total > 0)
    axes.set_facecolor("0.85")  # a class without samples has no shares and stays grey
    image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 100), interpolation="nearest")
    count = len(classes)
    step = -(-count // MOST_NAMES)
    places = np.arange(0, count, step)
    frame, dots = axes.figure.bbox, axes.figure.dpi
    width, height = frame.width / dots, frame.height / dots
    size = float(np.clip(0.62 * 72 * 0.8 * min(width, height) / (count / step), 4, 9))
    names = list(classes)[::step]
    axes.set_xticks(places, names, rotation=90, size=size)
    samples = [f"{name} ({total[place, 0]})" for name, place in zip(names, places, strict=True)]
    axes.set_yticks(places, samples, size=size)
    axes.set(xlabel="predicted", ylabel="true (samples)")
    if MOST_NUMBERS < count <= MOST_NAMES:
        # Lines lead the eye from a cell to its names.
        axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="0.9", linewidth=0.3)
        axes.tick_params(which="minor", length=0)
        axes.tick_params(axis="x", labeltop=True)
    if count <= MOST_NUMBERS:
        for row, column in np.argwhere(matrix > 0):
            value = share[row, column]
            color, text = "white" if value > 35 else "black", f"{value:.0f}" if value >= 0.5 else "<1"
            axes.text(column, row, text, ha="center", va="center", size=size, color=color)
    axes.figure.colorbar(image, ax=axes, label="per cent of the true class", shrink=0.5, fraction=0.03, pad=0.02)
