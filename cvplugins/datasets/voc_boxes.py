"""The corners of PASCAL VOC's boxes, whose files count pixels from 1, counted from 0 as frameworks do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .voc import VOCAnnotation

__all__ = ["voc_edges", "voc_pixels", "voc_truth"]

Side = TypeVar("Side", int, float, NDArray[np.float64])

FIRST_PIXEL = 1


def voc_pixels(xmin: Side, ymin: Side, xmax: Side, ymax: Side) -> tuple[Side, Side, Side, Side]:
    """Return the first and the last pixel of a box of a file, counted from 0; both are part of the box.

    As mmdet's ``XMLDataset`` reads boxes. Takes numbers, or columns of them.

    >>> voc_pixels(1, 1, 500, 375)
    (0, 0, 499, 374)
    """
    return xmin - FIRST_PIXEL, ymin - FIRST_PIXEL, xmax - FIRST_PIXEL, ymax - FIRST_PIXEL


def voc_edges(xmin: Side, ymin: Side, xmax: Side, ymax: Side) -> tuple[Side, Side, Side, Side]:
    """Return where a box of a file begins and ends, counted from 0; its last pixel lies before the end.

    As detectron2/data/datasets/pascal_voc.py reads boxes. Takes numbers, or columns of them.

    >>> voc_edges(1, 1, 500, 375)
    (0, 0, 500, 375)
    """
    return xmin - FIRST_PIXEL, ymin - FIRST_PIXEL, xmax, ymax


def voc_truth(
    annotation: VOCAnnotation, classes: Sequence[str], corners: Callable[..., tuple[float, ...]] = voc_pixels
) -> dict[str, Any]:
    """Return the objects of an image as :class:`cvplugins.metrics.ImageDetections` takes them.

    Args:
        annotation: What :func:`read_annotation` returned for these classes.
        classes: Class names, whose places are the labels.
        corners: :func:`voc_pixels` or :func:`voc_edges`.
    """
    objects = annotation.objects
    boxes = [corners(each.xmin, each.ymin, each.xmax, each.ymax) for each in objects]
    return {
        "truth_boxes": np.array(boxes, np.float64).reshape(-1, 4),
        "truth_labels": np.array([classes.index(each.name) for each in objects], np.int64),
        "difficult": np.array([each.difficult for each in objects], bool),
    }
