"""Count the boundary pixels of label maps: boundary IoU and boundary F1 of one image, all classes at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .matching import Integers

__all__ = ["count_boundary_regions", "count_contours"]


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
    from scipy.spatial import cKDTree

    distance = tolerance if tolerance >= 1 else math.ceil(tolerance * math.hypot(*label.shape))
    # Classes lie so far apart along a third axis that only pixels of the same class can be near each other.
    stretch = np.array([1.0, 1.0, distance + 1.0])
    predicted, true = (_contour_pixels(each, num_classes) for each in (prediction, label))
    counts = []
    for own, other in ((predicted, true), (true, predicted)):
        tree = cKDTree(other * stretch, balanced_tree=False)
        # Squared distances are whole numbers, so a little more reaches no further, but it lets the bound itself pass.
        found, _ = tree.query(own * stretch, distance_upper_bound=distance + 1e-6)
        counts += [np.bincount(own[near, 2], minlength=num_classes) for near in (np.isfinite(found), slice(None))]
    return np.stack(counts)


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


def _contour_pixels(labels: NDArray[Any], num_classes: int) -> Integers:
    """Return row, column and class of every contour pixel, ``(K, 3)``; a pixel may belong to several classes."""
    padded = np.concatenate([labels, labels[-1:]])
    padded = np.concatenate([padded, padded[:, -1:]], axis=1)
    corners = np.stack([padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]]).reshape(4, -1)
    pixels = np.flatnonzero((corners[1:] != corners[0]).any(axis=0))
    classes = corners[:, pixels].astype(np.int64)
    keys = np.unique((pixels * (num_classes + 1) + np.minimum(classes, num_classes)).reshape(-1))
    pixels, classes = np.divmod(keys, num_classes + 1)
    kept = classes < num_classes
    rows, columns = np.divmod(pixels[kept], labels.shape[1])
    return np.stack([rows, columns, classes[kept]], axis=1)
