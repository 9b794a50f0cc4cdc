"""Count the boundary pixels of label maps: boundary IoU and boundary F1 of one image, all classes at once."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .matching import Integers

__all__ = ["count_boundary_regions", "count_contours"]

Indices = NDArray[np.int32]

MOST_CELLS = 1 << 26  # times classes, of the table that says where a contour is: a byte each


def count_boundary_regions(
    label: NDArray[Any], prediction: NDArray[Any], num_classes: int, dilation_ratio: float = 0.02
) -> Integers:
    """Count, per class, the pixels that lie near the boundary of their region: what boundary IoU divides.

    A pixel lies near when a pixel of another class, or one outside of the image, is at most ``dilation_ratio`` of
    the diagonal away, rounded, at least 1, along rows or columns (chessboard distance), as in the reference.

    Reference: Cheng et al., Boundary IoU, CVPR 2021, arXiv:2103.16562.

    Args:
        label: True classes, ``(H, W)``; values from ``num_classes`` on are ignored but end a region.
        prediction: Predicted classes, ``(H, W)``.
        num_classes: Number of classes C.
        dilation_ratio: Width of the boundary as a share of the image's diagonal.

    Returns:
        int64 ``(3, C)``: pixels near both boundaries of the same class, near the label's, near the prediction's.

    Example:
        >>> image = np.zeros((5, 5), int)
        >>> count_boundary_regions(image, image, 1)[:, 0]  # all but the 3x3 pixels in the middle
        array([16, 16, 16])
    """
    width = max(1, round(dilation_ratio * math.hypot(*label.shape)))
    in_label, in_prediction = _near_boundary(label, width), _near_boundary(prediction, width)
    both = in_label & in_prediction & (label == prediction)
    return np.stack(
        [
            np.bincount(values.astype(np.int64), minlength=num_classes)[:num_classes]
            for values in (label[both], label[in_label], prediction[in_prediction])
        ]
    )


def count_contours(
    label: NDArray[Any], prediction: NDArray[Any], num_classes: int, tolerance: float = 0.008
) -> Integers:
    """Count, per class, the contour pixels that have one of the other map nearby: what boundary F1 divides.

    Contours are DAVIS's: a pixel belongs to the contour of a class when the pixel or its right, lower or lower right
    neighbour, but not all of them, is of that class. Near is a Euclidean distance of at most ``tolerance``.

    Reference: Perazzi et al., DAVIS, CVPR 2016; the measure is Martin et al., TPAMI 2004.

    Args:
        label: True classes, ``(H, W)``; values from ``num_classes`` on are ignored but end a region.
        prediction: Predicted classes, ``(H, W)``.
        num_classes: Number of classes C.
        tolerance: A share of the image's diagonal, rounded up to whole pixels; pixels if at least 1.

    Returns:
        int64 ``(4, C)``: contour pixels of the prediction near the label's, all of them; those of the label near the
        prediction's, all of them.

    Example:
        >>> label = np.array([[0, 0, 0, 1, 1, 1]])
        >>> count_contours(label, np.roll(label, 1), 2, tolerance=1)[:, 1]  # of two changes one is right
        array([1, 2, 1, 1])
    """
    distance = tolerance if tolerance >= 1 else math.ceil(tolerance * math.hypot(*label.shape))
    predicted, true = (_contour_pixels(each, num_classes) for each in (prediction, label))
    counts = []
    for own, other in ((predicted, true), (true, predicted)):
        near = _near(own, other, distance, label.shape, num_classes)
        counts += [np.bincount(values, minlength=num_classes) for values in (own.label[near], own.label)]
    return np.stack(counts)


class _Contour(NamedTuple):
    """Pixels on the contours of the classes, K of them; one that is on several contours is there several times."""

    row: Indices
    column: Indices
    label: Indices

    def where(self, chosen: NDArray[np.bool_]) -> _Contour:
        """Return some of the pixels."""
        return _Contour(self.row[chosen], self.column[chosen], self.label[chosen])

    def points(self, apart: float) -> NDArray[np.float64]:
        """Return the pixels with the class as a third coordinate, in steps of ``apart``, ``(K, 3)``."""
        return np.stack([self.row, self.column, self.label * apart], axis=1)


def _near(
    own: _Contour, other: _Contour, distance: float, shape: tuple[int, ...], num_classes: int
) -> NDArray[np.bool_]:
    """Return which pixels of a contour have one of the same class in the other within a distance, ``(K,)``.

    Cells so small that all of their pixels are near each other settle almost all of them: those with such a pixel in
    their own cell, and those without one in any cell around. A tree is asked for the rest.
    """
    from scipy.spatial import cKDTree

    side = math.isqrt(int(distance**2 / 2)) + 1
    across = tuple(-(-length // side) for length in shape)
    if math.prod(across) * num_classes > MOST_CELLS:
        found, unsure = np.zeros(len(own.row), bool), np.ones(len(own.row), bool)
        wanted = np.ones(len(other.row), bool)
    else:
        reach = int((side - 1 + distance) // side)
        slots, other_slots = (
            (each.row // side * across[1] + each.column // side) * num_classes + each.label for each in (own, other)
        )
        table = _occupied(other_slots, (*across, num_classes))
        found = table.reshape(-1)[slots]
        unsure = ~found & _spread(table, reach).reshape(-1)[slots]
        wanted = _spread(_occupied(slots[unsure], (*across, num_classes)), reach).reshape(-1)[other_slots]
    if unsure.any():
        # Classes lie so far apart along a third axis that only pixels of the same class can be near each other.
        tree = cKDTree(other.where(wanted).points(distance + 1), balanced_tree=False)
        # Squared distances are whole numbers, so a little more reaches no further, but it lets the bound itself pass.
        nearest, _ = tree.query(own.where(unsure).points(distance + 1), distance_upper_bound=distance + 1e-6)
        found[unsure] = np.isfinite(nearest)
    return found


def _occupied(slots: Indices, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which cells have a pixel of which class, ``(rows, columns, C)``."""
    table: NDArray[np.bool_] = np.zeros(math.prod(shape), bool)
    table[slots] = True
    return table.reshape(shape)


def _spread(table: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Return which cells have an occupied one at most ``reach`` rows and columns away."""
    padded = np.pad(table, ((reach, reach), (reach, reach), (0, 0)))
    rows = _running(np.logical_or, padded, 2 * reach + 1).swapaxes(0, 1)
    spread: NDArray[np.bool_] = _running(np.logical_or, rows, 2 * reach + 1).swapaxes(0, 1)
    return spread


def _near_boundary(labels: NDArray[Any], width: int) -> NDArray[np.bool_]:
    """Return where the square of ``2 * width + 1`` pixels around a pixel leaves the image or holds several labels."""
    near = np.ones(labels.shape, bool)
    side = 2 * width + 1
    if min(labels.shape) >= side:
        highest, lowest = (
            _running(extreme, _running(extreme, labels, side).T, side).T for extreme in (np.maximum, np.minimum)
        )
        near[width : labels.shape[0] - width, width : labels.shape[1] - width] = highest != lowest
    return near


def _running(extreme: np.ufunc, values: NDArray[Any], length: int) -> NDArray[Any]:
    """Return the maximum or minimum of each ``length`` rows that follow each other, by doubling."""
    done = 1
    while done < length:
        step = min(done, length - done)
        values = extreme(values[:-step], values[step:])
        done += step
    return values


def _contour_pixels(labels: NDArray[Any], num_classes: int) -> _Contour:
    """Return every pixel that is on the contour of a class."""
    padded = np.concatenate([labels, labels[-1:]])
    padded = np.concatenate([padded, padded[:, -1:]], axis=1)
    corners = [padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]]
    differs = [corner != corners[0] for corner in corners[1:]]
    on_contour = differs[0] | differs[1] | differs[2]
    parts = []
    for number, corner in enumerate(corners):
        # A class counts at the first of the four corners that has it.
        new = on_contour & (corner < num_classes)
        for before in corners[:number]:
            new &= corner != before
        rows, columns = np.nonzero(new)
        parts.append((rows.astype(np.int32), columns.astype(np.int32), corner[new].astype(np.int32)))
    return _Contour(*(np.concatenate(column) for column in zip(*parts, strict=True)))
