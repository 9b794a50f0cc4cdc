"""Draw a confusion matrix, of two classes or of hundreds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["confusion_size", "draw_confusion_matrix"]

MOST_NAMES = 200


def confusion_size(num_classes: int) -> float:
    """Return how many inches a side of the axes needs for names that can be read: 6 to 30.

    >>> confusion_size(150)
    22.5
    """
    return float(np.clip(3 + 0.13 * num_classes, 6, 30))


def draw_confusion_matrix(axes: Axes, matrix: NDArray[Any], classes: Sequence[str]) -> None:
    """Draw each row as shares of its sum, so that the diagonal is the recall.

    Colour grows with the square root of the share, which keeps rare mistakes visible. A row without a count is grey.
    Names, and per cent where there is room for them, are as large as the axes allow: :func:`confusion_size` says how
    large they should be. Beyond 200 classes only some are named.

    Args:
        axes: Where to.
        matrix: Counts, at least 0; row: true class, column: predicted class, ``(C, C)``.
        classes: Names of rows and columns, C of them.

    Raises:
        ValueError: ``matrix`` does not fit ``classes``.
    """
    from matplotlib.colors import PowerNorm

    count = len(classes)
    if matrix.shape != (count, count):
        raise ValueError(f"a confusion matrix of {count} classes has shape {(count, count)}, not {matrix.shape}")
    totals = matrix.sum(axis=1, keepdims=True)
    percent = np.where(totals > 0, 100 * matrix / np.where(totals > 0, totals, 1), np.nan)
    axes.set_facecolor("#d8d8d8")
    image = axes.imshow(percent, cmap="Blues", norm=PowerNorm(0.5, 0, 100), interpolation="nearest")
    extent = axes.get_window_extent()
    inches = min(extent.width, extent.height) / axes.figure.dpi
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.3 / max(inches, 1), pad=0.01, shrink=min(1, 4 / inches))
    bar.set_label("share of the true class (%)")
    cell = 72 * inches / max(count, 1)  # points
    step = -(-count // MOST_NAMES) or 1
    size = min(10.0, 0.75 * cell * step)
    ticks = np.arange(count)
    axes.set_xticks(ticks[::step], list(classes)[::step], rotation=90, size=size)
    axes.set_yticks(ticks[::step], list(classes)[::step], size=size)
    axes.tick_params(length=min(3.0, size / 3), pad=2)
    axes.set(xlabel="predicted", ylabel="true")
    if cell > 18:
        for row, column in np.argwhere(percent >= 0.5):
            value = percent[row, column]
            color = "white" if value > 40 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", size=min(10.0, 0.4 * cell), color=color)
    elif 1 < count <= MOST_NAMES:  # lines that lead the eye from a cell to its names
        axes.set_xticks(ticks[1:] - 0.5, minor=True)
        axes.set_yticks(ticks[1:] - 0.5, minor=True)
        axes.grid(which="minor", color="#e8e8e8", linewidth=0.3)
        axes.tick_params(which="minor", length=0)
