"""Anchors that fit boxes: clusters of their sizes, and scales and ratios for a pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["AnchorFit", "cluster_sizes", "fit_anchors", "resized_sizes", "shape_iou"]

Sizes = NDArray[np.float64]

STRIDES = (4, 8, 16, 32, 64)  # of a feature pyramid
USUAL_SCALE, USUAL_RATIOS = 8.0, (0.5, 1.0, 2.0)
SCALES = np.geomspace(1, 16, 65)
MOST = 20_000  # boxes that are looked at
GOOD = 0.5


@dataclass(frozen=True)
class AnchorFit:
    """Anchors for a pyramid with one scale a level.

    Attributes:
        strides: Of the levels.
        scale: The anchor's side over its level's stride.
        ratios: Height over width.
        mean_iou: Mean over the boxes of the IoU with the best anchor, both at one centre.
        recall: Share of the boxes for which that is at least 0.5.
        usual_mean_iou: The same with scale 8 and ratios 0.5, 1 and 2.
        usual_recall: The same.
        clusters: Width and height of nine clusters, small ones first, for heads that name sizes.
    """

    strides: tuple[int, ...]
    scale: float
    ratios: tuple[float, ...]
    mean_iou: float
    recall: float
    usual_mean_iou: float
    usual_recall: float
    clusters: tuple[tuple[float, float], ...]


def shape_iou(sizes: Sizes, anchors: Sizes) -> Sizes:
    """Return the IoU of boxes and anchors that have one centre, ``(N, K)``.

    Args:
        sizes: Width and height, ``(N, 2)``.
        anchors: The same, ``(K, 2)``.
    """
    inside = np.minimum(sizes[:, None], anchors[None]).prod(axis=2)
    return np.asarray(inside / (sizes.prod(axis=1)[:, None] + anchors.prod(axis=1)[None] - inside))


def resized_sizes(boxes: Sizes, image_sizes: NDArray[np.int64], scale: tuple[int, int] | None) -> Sizes:
    """Return width and height of boxes after a resizing that keeps ratios, without those of no size.

    Args:
        boxes: ``xyxy``, ``(N, 4)``.
        image_sizes: Width and height of each box's image, ``(N, 2)``.
        scale: The longest and the shortest side that the image may have at most, in any order; None for no resizing.
    """
    sizes = boxes[:, 2:] - boxes[:, :2]
    keep = (sizes > 0).all(axis=1)
    if scale is not None:
        keep &= (image_sizes > 0).all(axis=1)
        long, short = max(scale), min(scale)
        images = image_sizes[keep]
        factor = np.minimum(long / images.max(axis=1), short / images.min(axis=1))
        return np.asarray(sizes[keep] * factor[:, None])
    return np.asarray(sizes[keep])


def cluster_sizes(sizes: Sizes, number: int, *, seed: int = 0, rounds: int = 100) -> Sizes:
    """Cluster widths and heights by k-means, where near means a high IoU; as YOLOv2 does (arXiv:1612.08242).

    Args:
        sizes: ``(N, 2)``.
        number: Of clusters; fewer are returned where there are fewer different sizes.
        seed: Of the beginning, which is drawn as k-means++ does.
        rounds: At most so many.

    Returns:
        Width and height of each cluster, by area, ``(K, 2)``.
    """
    distinct = np.unique(sizes, axis=0)
    if len(distinct) <= number:
        return np.asarray(distinct[np.argsort(distinct.prod(axis=1), kind="stable")])
    draw = np.random.default_rng(seed)
    centres = sizes[draw.integers(len(sizes), size=1)]
    while len(centres) < number:
        distance = 1 - shape_iou(sizes, centres).max(axis=1)
        centres = np.concatenate([centres, sizes[draw.choice(len(sizes), size=1, p=distance / distance.sum())]])
    nearest = np.full(len(sizes), -1)
    for _ in range(rounds):
        found = shape_iou(sizes, centres).argmax(axis=1)
        if (found == nearest).all():
            break
        nearest = found
        for place in np.unique(nearest):
            centres[place] = np.median(sizes[nearest == place], axis=0)
    return np.asarray(centres[np.argsort(centres.prod(axis=1), kind="stable")])


def fit_anchors(sizes: Sizes, strides: Sequence[int] = STRIDES, ratios: int = 3) -> AnchorFit | None:
    """Choose scale and ratios of a pyramid's anchors; None where there is no box.

    Ratios are the centres of k-means over the logarithm of height over width, and the scale is the one of 65 from 1 to
    16 with the best mean IoU. Where the usual anchors fit as well, these are returned.

    Args:
        sizes: Width and height of boxes as the model sees them, ``(N, 2)``.
        strides: Of the levels.
        ratios: How many.
    """
    if not len(sizes):
        return None
    if len(sizes) > MOST:
        sizes = sizes[np.random.default_rng(0).choice(len(sizes), MOST, replace=False)]
    own = _cluster_ratios(sizes[:, 1] / sizes[:, 0], ratios)
    fits = [
        (*_fit(sizes, strides, float(scale), candidate), float(scale), candidate)
        for candidate in (own, USUAL_RATIOS)
        for scale in SCALES
    ]
    usual = _fit(sizes, strides, USUAL_SCALE, USUAL_RATIOS)
    best = max(fits, key=lambda fit: fit[0])
    rounded = round(best[2], 1), tuple(round(ratio, 2) for ratio in best[3])
    mean, recall = _fit(sizes, strides, *rounded)
    if mean <= usual[0]:
        rounded, (mean, recall) = (USUAL_SCALE, USUAL_RATIOS), usual
    clusters = cluster_sizes(sizes, 9)
    return AnchorFit(
        tuple(strides), *rounded, mean, recall, *usual, tuple((float(width), float(high)) for width, high in clusters)
    )


def _fit(sizes: Sizes, strides: Sequence[int], scale: float, ratios: Sequence[float]) -> tuple[float, float]:
    """Return mean IoU with the best anchor, and recall."""
    sides = np.array([stride * scale for stride in strides])
    roots = np.sqrt(np.array(ratios))
    anchors = np.stack([np.outer(sides, 1 / roots).ravel(), np.outer(sides, roots).ravel()], axis=1)
    best = shape_iou(sizes, anchors).max(axis=1)
    return float(best.mean()), float((best >= GOOD).mean())


def _cluster_ratios(ratios: NDArray[np.float64], number: int) -> tuple[float, ...]:
    """Return the centres of k-means over logarithms, which begins at quantiles."""
    logs = np.log(ratios)
    centres = np.quantile(logs, (np.arange(number) + 0.5) / number)
    for _ in range(100):
        nearest = np.abs(logs[:, None] - centres).argmin(axis=1)
        moved = np.array([logs[nearest == k].mean() if (nearest == k).any() else centres[k] for k in range(number)])
        if np.allclose(moved, centres):
            break
        centres = moved
    return tuple(float(each) for each in np.unique(np.exp(centres).round(2).clip(0.05, 20)))
