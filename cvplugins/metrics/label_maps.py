"""Count the pixels of label maps: the confusion matrix of one image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .matching import Integers

__all__ = ["LabelMap", "confusion_matrix"]

LabelMap = NDArray[Any] | Tensor


def confusion_matrix(
    label: LabelMap, prediction: LabelMap, num_classes: int, ignore_index: int | None = 255
) -> Integers:
    """Count the pixels of each pair of labelled and predicted class.

    Nothing is masked: all pairs of values are counted at once, and the ignored row is left out of the table. Maps
    whose values fit into a byte are counted by NumPy, most of them run by run; others, and those on a GPU, by torch
    where they are.

    Args:
        label: True classes in ``[0, num_classes)`` or ``ignore_index``, any integer dtype and any shape.
        prediction: Predicted classes in ``[0, num_classes)``, same shape; anything where the label is ignored.
        num_classes: Number of classes C.
        ignore_index: Label of the pixels that do not count; all count if None.

    Returns:
        int64 counts ``(C, C)``; row: labelled class, column: predicted class.

    Raises:
        ValueError: The shapes differ, a map does not hold integers, or a value that counts is no class.

    Example:
        >>> confusion_matrix(np.array([[0, 0, 1, 255]]), np.array([[0, 1, 1, 1]]), 2)
        array([[1, 1],
               [0, 1]])
    """
    if tuple(label.shape) != tuple(prediction.shape):
        raise ValueError(
            f"label {tuple(label.shape)} and prediction {tuple(prediction.shape)} differ in shape; "
            "resize the prediction to the label"
        )
    for name, each in (("label", label), ("prediction", prediction)):
        integers = not each.dtype.is_floating_point if isinstance(each, Tensor) else each.dtype.kind in "bui"
        if not integers:
            raise ValueError(f"{name} holds {each.dtype}, expected integers: the class of each pixel")
    on_gpu = any(isinstance(each, Tensor) and each.is_cuda for each in (label, prediction))
    # A table of all bytes holds every class; what does not fit into bytes, or lies on a GPU, is torch's.
    small = None if on_gpu or num_classes > 256 else (_as_bytes(label), _as_bytes(prediction))
    if small is None or small[0] is None or small[1] is None:
        matrix, num_ignored = _count_any(_integers(label), _integers(prediction), num_classes, ignore_index)
    else:
        matrix, num_ignored = _count_bytes(small[0], small[1], num_classes, ignore_index)
    if matrix.sum() + num_ignored != np.prod(label.shape, dtype=np.int64):
        raise _out_of_range(_integers(label), _integers(prediction), num_classes, ignore_index)
    return matrix


def _as_bytes(values: LabelMap) -> NDArray[np.uint8] | None:
    """Return the values as a flat uint8 array, or None if they do not fit."""
    array = _array(values).reshape(-1)
    if array.dtype == np.uint8:
        return array
    # One bit above the lowest eight, or a sign, in any value shows in the union of all bits.
    return array.astype(np.uint8) if 0 <= np.bitwise_or.reduce(array) <= 255 else None


def _count_bytes(
    label: NDArray[np.uint8], prediction: NDArray[np.uint8], num_classes: int, ignore_index: int | None
) -> tuple[Integers, int]:
    changes = label[1:] != label[:-1]
    changes |= prediction[1:] != prediction[:-1]
    # Objects cover many pixels in a row: counting their runs is faster until a run is about as long as its overhead.
    if np.count_nonzero(changes) * 10 < len(label):
        starts = np.append(0, np.flatnonzero(changes) + 1)
        return _count_runs(label, prediction, starts, num_classes, ignore_index)
    keys = label.astype(np.uint16)
    keys <<= 8
    keys |= prediction
    counted = torch.bincount(torch.from_numpy(keys.astype(np.int32)), minlength=65536).numpy()
    table: Integers = counted.reshape(256, 256)
    num_ignored = 0
    if ignore_index is not None and 0 <= ignore_index < 256:
        num_ignored = int(table[ignore_index].sum())
        table[ignore_index] = 0
    return table[:num_classes, :num_classes].copy(), num_ignored


def _count_runs(
    label: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    starts: Integers,
    num_classes: int,
    ignore_index: int | None,
) -> tuple[Integers, int]:
    """Count runs of equal pixels by their lengths; one more row and column take what is no class."""
    lengths = np.diff(starts, append=len(label))
    row, column = (np.minimum(each[starts].astype(np.intp), num_classes) for each in (label, prediction))
    side = num_classes + 1
    # Weights are float64, which is exact for an image of less than 2^53 pixels.
    table = np.bincount(row * side + column, lengths, minlength=side**2).reshape(side, side)
    matrix = table[:num_classes, :num_classes].astype(np.int64)
    if ignore_index is None:
        return matrix, 0
    if 0 <= ignore_index < num_classes:
        matrix[ignore_index] = 0
    return matrix, int(lengths[label[starts] == ignore_index].sum())


def _count_any(label: Tensor, prediction: Tensor, num_classes: int, ignore_index: int | None) -> tuple[Integers, int]:
    """Count with one more row for ignored labels, and a row and a column for values that are no class."""
    device = prediction.device
    label, prediction = label.to(device).flatten(), prediction.flatten()
    row = torch.where((label >= 0) & (label < num_classes), label, num_classes + 1)
    if ignore_index is not None:
        row = torch.where(label == ignore_index, num_classes, row)
    column = torch.where((prediction >= 0) & (prediction < num_classes), prediction, num_classes)
    shape = (num_classes + 2, num_classes + 1)
    table = torch.bincount(row * shape[1] + column, minlength=shape[0] * shape[1]).reshape(shape).cpu().numpy()
    return table[:num_classes, :num_classes].copy(), int(table[num_classes].sum())


def _out_of_range(label: Tensor, prediction: Tensor, num_classes: int, ignore_index: int | None) -> ValueError:
    label, prediction = label.cpu(), prediction.cpu()
    counts = torch.ones_like(label, dtype=torch.bool) if ignore_index is None else label != ignore_index
    wrong = {
        name: values[counts & ((values < 0) | (values >= num_classes))]
        for name, values in (("label", label), ("prediction", prediction))
    }
    name = "label" if len(wrong["label"]) else "prediction"
    hint = {
        "label": f" and ignore_index is {ignore_index}: set ignore_index, or map the labels where they are loaded",
        "prediction": ": was the model built for other classes?",
    }
    return ValueError(f"{name} {int(wrong[name][0])} is no class; there are {num_classes}, from 0{hint[name]}")


def _integers(values: LabelMap) -> Tensor:
    """Return the values as int64, where they are."""
    return values.long() if isinstance(values, Tensor) else torch.from_numpy(values.astype(np.int64))


def _array(values: LabelMap) -> NDArray[Any]:
    return values.cpu().numpy() if isinstance(values, Tensor) else values
