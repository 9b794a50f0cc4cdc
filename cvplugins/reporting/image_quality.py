"""Table and figure of image quality, table of generated images."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cvplugins.metrics import GenerationResult, ImageQualityResult

from .figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_image_quality_figure", "generation_table", "image_quality_table"]

RANKING = ("SSIM", "MS-SSIM", "PSNR", "MSE", "MAE")  # by which of them images are the worst
UNITS = {"PSNR": " (dB)"}
BLUE, ORANGE = "#4878a8", "#c05020"


def image_quality_table(result: ImageQualityResult, worst: int = 5) -> str:
    """Return a table for the log: mean, spread and range of each measure, and the worst images.

    Args:
        result: What :meth:`cvplugins.metrics.ImageQualityMetric.compute` returned.
        worst: How many of the worst images to list, by SSIM, or else by the first measure there is.
    """
    chosen = _worst(result, worst)
    names = [_short(result.image_ids[index]) for index in chosen]
    width = max(len(name) for name in ("number of images", *names))
    scalars = result.scalars()
    columns = [result.column(name) for name in result.measures]
    rows = {
        "mean": [scalars.get(name, math.nan) for name in result.measures],
        "median": [float(np.median(_defined(column))) if len(_defined(column)) else math.nan for column in columns],
        "lowest": [float(_defined(column).min(initial=math.inf)) for column in columns],
        "highest": [float(_defined(column).max(initial=-math.inf)) for column in columns],
    }
    lines = [f"{'number of images':<{width}}{len(result.image_ids):>12}"]
    lines.append(f"{'':<{width}}" + "".join(f"{name:>12}" for name in result.measures))
    if not len(result.image_ids):
        return lines[0]
    lines += [f"{title:<{width}}" + "".join(map(_number, values)) for title, values in rows.items()]
    lines += [f"worst by {_ranking(result)}:"]
    for name, index in zip(names, chosen, strict=True):
        lines.append(f"{name:<{width}}" + "".join(map(_number, result.values[index].tolist())))
    return "\n".join(lines)


def generation_table(result: GenerationResult) -> str:
    """Return a table for the log: FID with its parts, the inception score with its spread.

    Args:
        result: What :meth:`cvplugins.metrics.GenerationMetric.compute` returned. ``-`` stands for undefined.
    """
    scores, distance = result.split_scores, result.frechet
    rows = {
        "generated images": f"{result.num_generated:>12}",
        "real images": f"{result.num_real:>12}" if result.num_real else f"{'-':>12}",
        "FID": _number(distance.total),
        "  of means": _number(distance.mean),
        "  of covariances": _number(distance.covariance),
        f"IS of {len(scores)} splits": _number(float(scores.mean())),
        "  deviation": _number(float(scores.std())),
    }
    return "\n".join(f"{title:<18}{value}" for title, value in rows.items())


def draw_image_quality_figure(result: ImageQualityResult, *paths: str | os.PathLike[str]) -> None:
    """Draw how each measure is distributed over the images, and SSIM against PSNR with the worst images named.

    Args:
        result: What :meth:`cvplugins.metrics.ImageQualityMetric.compute` returned.
        paths: Where to; the suffix is the format: ``.png``, ``.svg`` or another one of matplotlib's. An old file is
            replaced only by a whole new one.

    Raises:
        ImportError: matplotlib is not installed.
    """
    # MSE says little beside PSNR, which is its logarithm.
    shown = [name for name in result.measures if name != "MSE" or "PSNR" not in result.measures]
    pair = {"PSNR", "SSIM"} <= set(result.measures)
    figure = new_figure(4.2 * len(shown) + 5.6 * pair, 4.4)
    axes = figure.subplots(1, len(shown) + pair, squeeze=False, width_ratios=[1.0] * len(shown) + [1.4] * pair)[0]
    for each, name in zip(axes, shown, strict=False):
        _draw_distribution(each, result, name)
    if pair:
        _draw_pairs(axes[-1], result)
    scalars = result.scalars()
    title = ", ".join(f"{name} {_number(scalars[name]).strip()}" for name in result.measures if name in scalars)
    figure.suptitle(f"{len(result.image_ids)} images: {title or 'nothing to compare'}")
    save_figure(figure, *paths)


def _draw_distribution(axes: Axes, result: ImageQualityResult, name: str) -> None:
    from matplotlib.ticker import MaxNLocator

    column = result.column(name)
    finite, infinite = column[np.isfinite(column)], int(np.isinf(column).sum())
    without = f"\nwithout {infinite} equal images" if infinite else ""
    axes.set(xlabel=name + UNITS.get(name, ""), ylabel="images", title=without.strip())
    if not len(finite):
        axes.set(xticks=[], yticks=[])
        return
    axes.hist(finite, bins=int(np.clip(2 * len(finite) ** (1 / 3), 5, 60)), color=BLUE, alpha=0.8)
    mean, median = float(finite.mean()), float(np.median(finite))
    axes.axvline(mean, color=ORANGE, linewidth=1.5)
    axes.axvline(median, color="0.2", linewidth=1.5, linestyle=":")
    numbers = f"mean {_number(mean).strip()}, median (dotted) {_number(median).strip()}"
    axes.set_title(numbers + without, size=9)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", alpha=0.3)


def _draw_pairs(axes: Axes, result: ImageQualityResult) -> None:
    psnr, ssim = result.column("PSNR"), result.column("SSIM")
    axes.scatter(psnr, ssim, s=14, color=BLUE, alpha=0.5, linewidths=0)
    named = [index for index in _worst(result, 5) if np.isfinite(psnr[index])]
    for index, marker in zip(named, "ov^sD", strict=False):
        label = f"{_short(result.image_ids[index], 34)}: {ssim[index]:.3f}"
        axes.scatter(psnr[index], ssim[index], s=34, marker=marker, facecolors="none", edgecolors=ORANGE, label=label)
    axes.set(xlabel="PSNR (dB)", ylabel="SSIM")
    axes.grid(alpha=0.3)
    if named:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, title="worst by SSIM", frameon=False)
    elif not np.isfinite(psnr).any():
        axes.set(xticks=[], yticks=[])


def _ranking(result: ImageQualityResult) -> str:
    return next(name for name in RANKING if name in result.measures)


def _worst(result: ImageQualityResult, count: int) -> NDArray[np.intp]:
    return result.worst(_ranking(result))[:count]


def _defined(values: NDArray[Any]) -> NDArray[Any]:
    kept: NDArray[Any] = values[~np.isnan(values)]
    return kept


def _short(image_id: int | str, most: int = 40) -> str:
    """Return the end of a name, which tells images apart."""
    name = str(image_id)
    return name if len(name) <= most else f"...{name[3 - most :]}"


def _number(value: float) -> str:
    return f"{'-':>12}" if math.isnan(value) else f"{value:>12.4f}" if abs(value) < 1000 else f"{value:>12.1f}"
