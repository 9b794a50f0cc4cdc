"""Elementwise work in pieces that stay in the cache, so that nothing of the whole size is kept in between."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .targets import is_compiling

__all__ = ["chunks", "per_sample", "values_at_once"]

VALUES_AT_ONCE = 1 << 17  # of each thread on a CPU: a core's cache
VALUES_AT_ONCE_ELSEWHERE = 1 << 24  # enough to keep a GPU busy


def per_sample(values: Tensor) -> Tensor:
    """Return ``(N, C, *)`` or ``(N,)`` as ``(N, C, P)``, a view where memory allows it.

    >>> per_sample(torch.zeros(2, 3, 4, 5)).shape
    torch.Size([2, 3, 20])
    """
    channels = values.shape[1] if values.ndim > 1 else 1
    return values.reshape(len(values), channels, math.prod(values.shape[2:]))


def values_at_once(values: Tensor) -> int:
    """Return how many values to work on at once: what the caches of all threads hold on a CPU, more elsewhere.

    A compiler fuses the operations itself, so that it gets everything in one piece.

    >>> values_at_once(torch.zeros(2)) == VALUES_AT_ONCE * torch.get_num_threads()
    True
    """
    if is_compiling():
        return max(1, values.numel())
    return VALUES_AT_ONCE * torch.get_num_threads() if values.device.type == "cpu" else VALUES_AT_ONCE_ELSEWHERE


def chunks(values: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Yield indices that cut ``values`` ``(N, C, P)`` into pieces: some samples, or some positions of one sample.

    >>> many = torch.zeros(2, values_at_once(torch.zeros(0)), 1)
    >>> [samples for samples, _, _ in chunks(many)]
    [slice(0, 1, None), slice(1, 2, None)]
    """
    everything = slice(None)
    if is_compiling():  # no range over sizes, which would compile anew for each of them
        yield everything, everything, everything
        return
    samples, channels, positions = values.shape
    size = values_at_once(values)
    if channels * positions <= size:
        step = max(1, size // max(1, channels * positions))
        for start in range(0, samples, step):
            yield slice(start, start + step), everything, everything
        return
    step = max(1, size // channels)
    for sample in range(samples):
        for start in range(0, positions, step):
            yield slice(sample, sample + 1), everything, slice(start, start + step)
