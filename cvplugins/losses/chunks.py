"""Elementwise work in pieces that stay in the cache, so that nothing of the whole size is kept in between."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

from .targets import is_compiling

__all__ = ["chunks", "per_sample"]

VALUES_AT_ONCE = 1 << 16  # of a CPU: a core's cache
VALUES_AT_ONCE_ELSEWHERE = 1 << 24  # enough to keep a GPU busy


def per_sample(values: Tensor) -> Tensor:
    """Return ``(N, C, *)`` or ``(N,)`` as ``(N, C, P)``, a view where memory allows it.

    >>> import torch
    >>> per_sample(torch.zeros(2, 3, 4, 5)).shape
    torch.Size([2, 3, 20])
    """
    channels = values.shape[1] if values.ndim > 1 else 1
    return values.reshape(len(values), channels, math.prod(values.shape[2:]))


def chunks(values: Tensor, size: int | None = None) -> Iterator[tuple[slice, slice, slice]]:
    """Yield indices that cut ``values`` ``(N, C, P)`` into pieces: some samples, or some positions of one sample.

    A compiler fuses the operations itself, so that it gets everything in one piece.

    Args:
        values: What is cut.
        size: How many values a piece holds at most on a CPU.

    Example:
        >>> import torch
        >>> list(chunks(torch.zeros(2, 3, 4)))
        [(slice(0, 5461, None), slice(None, None, None), slice(None, None, None))]
    """
    samples, channels, positions = values.shape
    everything = slice(None)
    if is_compiling():
        yield everything, everything, everything
        return
    size = (size or VALUES_AT_ONCE) if values.device.type == "cpu" else VALUES_AT_ONCE_ELSEWHERE
    if channels * positions <= size:
        step = size // max(1, channels * positions)
        for start in range(0, samples, step):
            yield slice(start, start + step), everything, everything
        return
    step = max(1, size // channels)
    for sample in range(samples):
        for start in range(0, positions, step):
            yield slice(sample, sample + 1), everything, slice(start, start + step)
