"""Table and figure of what a split of a data set holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cvplugins.datasets.statistics import DataStatistics

from .figures import new_figure, save_figure
from .names import fit_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["data_statistics_table", "draw_data_statistics"]

COLOR, SECOND = "#4878a8", "#e0a030"
SIZE_COLORS = ("#b04a5a", "#e0a030", "#4878a8")
MOST_CLASSES = 40  # in one figure; the rarest are left out of it
PAIRS = 5


def data_statistics_table(found: DataStatistics) -> str:
    """Return a split's numbers for people: a line a class, and what concerns all of them.

    Args:
        found: What :func:`cvplugins.datasets.statistics.summarize_content` returned. Shares are per cent.
    """
    names = fit_names(found.classes, 30)
    width = max(map(len, (*names, "class")))
    total = max(int(found.pixels.sum()) + found.ignored_pixels, 1)
    head = f"{'class':<{width}}{'images':>9}"
    head += (
        f"{'pixels':>16}{'share':>8}" if found.is_label_maps else f"{'objects':>9}{'small':>8}{'medium':>8}{'large':>8}"
    )
    lines = [f"{found.name}: {found.images:,} images, {found.empty_images:,} of them without any of the classes", head]
    for place in np.argsort(-(found.pixels if found.is_label_maps else found.objects), kind="stable"):
        line = f"{names[place]:<{width}}{found.images_with[place]:>9,}"
        if found.is_label_maps:
            line += f"{found.pixels[place]:>16,}{100 * found.pixels[place] / total:>8.2f}"
        else:
            line += f"{found.objects[place]:>9,}" + "".join(f"{n:>8,}" for n in found.small_medium_large[place])
        if found.images_with[place]:
            lines.append(line)
    if absent := int((found.images_with == 0).sum()):
        lines.append(f"{absent} of {len(found.classes)} classes do not occur")
    return "\n".join([*lines, *_below(found, total)])


def draw_data_statistics(found: DataStatistics, *paths: str | os.PathLike[str]) -> None:
    """Draw a page: classes, sizes and shapes of boxes, objects in an image, and which classes are together.

    Args:
        found: What :func:`cvplugins.datasets.statistics.summarize_content` returned.
        paths: Where to; the suffix is the format.
    """
    counts = found.pixels if found.is_label_maps else found.objects
    occurring = int((counts > 0).sum())
    shown = np.argsort(-counts, kind="stable")[: min(occurring, MOST_CLASSES)]
    figure = new_figure(12, 5 + 0.22 * len(shown))
    grid = figure.add_gridspec(2, 2, height_ratios=[max(2, 0.22 * len(shown)), 2.6], width_ratios=[1, 1.1])
    more = f" (the {len(shown)} most frequent of {occurring} classes)" if len(shown) < occurring else ""
    figure.suptitle(f"{found.name}: {found.images:,} images{more}".replace("$", r"\$"))
    # A dollar would begin a formula.
    names = [each.replace("$", r"\$") for each in fit_names([found.classes[place] for place in shown], 24)]
    _draw_classes(figure.add_subplot(grid[0, 0]), found, shown, names)
    _draw_together(figure.add_subplot(grid[0, 1]), found, shown, names)
    if len(found.box_sizes):
        _draw_per_image(figure.add_subplot(grid[1, 0]), found)
        _draw_boxes(figure.add_subplot(grid[1, 1]), found)
    else:
        _draw_per_image(figure.add_subplot(grid[1, :]), found)
    save_figure(figure, *paths)


def _below(found: DataStatistics, total: int) -> list[str]:
    lines = []
    if found.is_label_maps:
        lines.append(f"pixels of no class: {found.ignored_pixels:,} ({100 * found.ignored_pixels / total:.2f} %)")
    else:
        objects = int(found.objects.sum())
        lines.append(
            f"{objects:,} objects, {objects / max(found.images, 1):.2f} an image, at most "
            f"{max(len(found.objects_per_image) - 1, 0)}"
        )
        for title, values in (("widths", found.widths), ("heights", found.heights), ("height / width", found.ratios)):
            if values:
                lines.append(f"{title}: " + ", ".join(f"{value:.4g} ({share})" for share, value in values.items()))
        rules = ", ".join(f"{rule} {number:,}" for rule, number in found.left_out.items())
        lines.append(f"a rule would leave out: {rules}")
    if pairs := _most_together(found):
        lines.append(f"most often in one image: {pairs}")
    if found.broken:
        lines.append(f"{len(found.broken):,} files cannot be read and are left out, such as {found.broken[0]}")
    return lines


def _most_together(found: DataStatistics) -> str:
    upper = np.triu(found.cooccurrence, 1)
    order = np.argsort(-upper, axis=None, kind="stable")[:PAIRS]
    pairs: Sequence[tuple[int, int]] = [divmod(int(place), len(found.classes)) for place in order]
    return ", ".join(f"{found.classes[a]} and {found.classes[b]} ({upper[a, b]:,})" for a, b in pairs if upper[a, b])


def _draw_classes(axes: Axes, found: DataStatistics, shown: np.ndarray, names: Sequence[str]) -> None:
    places = np.arange(len(shown))
    if found.is_label_maps:
        total = max(int(found.pixels.sum()) + found.ignored_pixels, 1)
        axes.barh(places, 100 * found.pixels[shown] / total, color=COLOR)
        axes.set_xlabel("per cent of the pixels")
        if found.pixels.any():
            axes.set_xscale("log")
    else:
        left = np.zeros(len(shown))
        for kind, (title, color) in enumerate(zip(("small", "medium", "large"), SIZE_COLORS, strict=True)):
            axes.barh(places, found.small_medium_large[shown, kind], left=left, color=color, label=title)
            left += found.small_medium_large[shown, kind]
        axes.set_xlabel("objects; small: below 32 x 32 pixels, large: from 96 x 96 on")
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncol=3, frameon=False, fontsize=8)
    axes.set_yticks(places, names, fontsize=8)
    axes.set_ylim(len(shown) - 0.4, -0.6)


def _draw_together(axes: Axes, found: DataStatistics, shown: np.ndarray, names: Sequence[str]) -> None:
    if not len(shown):
        axes.set_axis_off()
        return
    together = found.cooccurrence[np.ix_(shown, shown)]
    share = together / np.maximum(np.diag(together), 1)[:, None]
    image = axes.imshow(100 * share, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(shown)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(shown)), names, fontsize=7)
    axes.set_title("of the images with the row's class, per cent with the column's", fontsize=9)
    axes.figure.colorbar(image, ax=axes, shrink=0.8)


def _draw_per_image(axes: Axes, found: DataStatistics) -> None:
    axes.bar(range(len(found.objects_per_image)), found.objects_per_image, color=COLOR)
    axes.set_xlabel("classes in an image" if found.is_label_maps else "objects in an image")
    axes.set_ylabel("images")
    axes.set_xticks(range(0, len(found.objects_per_image), 1 + len(found.objects_per_image) // 20))


def _draw_boxes(axes: Axes, found: DataStatistics) -> None:
    width, height = np.maximum(found.box_sizes, 0.5).T
    axes.scatter(width, height, s=6, alpha=0.35, color=COLOR, linewidths=0)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.set(xlabel="width of a box, pixels; the line is a square", ylabel="height, pixels")
    low, high = max(found.box_sizes.min(), 0.5), found.box_sizes.max()
    axes.plot([low, high], [low, high], color=SECOND, linewidth=1)
