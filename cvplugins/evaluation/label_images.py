"""Semantic segmentation that was written to images: a folder of predictions and one of labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from cvplugins.datasets import DataError, read_label_image, without_zero_label
from cvplugins.errors import UserError
from cvplugins.metrics import SegmentationMetric, SegmentationResult

from .label_pairs import label_pairs

__all__ = ["evaluate_label_images"]

SHIFTS = ("none", "labels", "both")


def evaluate_label_images(
    predictions: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    classes: Sequence[str],
    *,
    reduce_zero_label: str = "none",
    **options: Any,
) -> SegmentationResult:
    """Evaluate PNG images whose pixels are class indices.

    Args:
        predictions: Folder of images; folders inside are searched.
        labels: Folder of images of the same names, such as ADE20K's ``annotations/validation``. Images that only one
            folder has are an error.
        classes: Class names.
        reduce_zero_label: Where 0 stands for "no class" and the classes count from 1, as in ADE20K's files: in
            ``"labels"``, in ``"both"`` (mmseg's ``format_only`` writes predictions so), or in ``"none"``. A labelled 0
            becomes ``ignore_index``.
        options: Options of :class:`cvplugins.metrics.SegmentationMetric`.

    Raises:
        DataError: An image is missing, cannot be read, or holds colours instead of indices.
        UserError: An option is wrong.
    """
    if reduce_zero_label not in SHIFTS:
        raise UserError(f"reduce_zero_label is {reduce_zero_label!r}; accepted: {', '.join(SHIFTS)}")
    pairs = label_pairs(predictions, labels)
    try:
        metric = SegmentationMetric(classes, **options)
    except ValueError as error:
        raise UserError(str(error)) from error
    ignore_index = metric.settings["ignore_index"]
    if reduce_zero_label != "none" and ignore_index is None:
        raise UserError("reduce_zero_label needs an ignore_index, which a labelled 0 becomes")
    for name, (found, wanted) in pairs.items():
        label, prediction = read_label_image(wanted), read_label_image(found)
        if reduce_zero_label != "none":
            label = without_zero_label(label, ignore_index)
        if reduce_zero_label == "both":
            prediction = prediction - 1
        try:
            metric.update(name, label, prediction)
        except ValueError as error:
            raise DataError(str(error)) from error
    return metric.compute()
