"""Norms of many tensors, and numbers brought from their devices in one transfer each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["norms_on_device", "read_norms", "read_numbers"]


def norms_on_device(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the Euclidean norm of each tensor as a scalar on its own device, without waiting for it.

    Norms of half precision tensors are accumulated in float32. Squares under the smallest float count as 0: a norm
    of float32 values under about 1e-22 is 0.

    >>> norms_on_device([torch.tensor([3.0, 4.0])])
    [tensor(5.)]
    """
    if _alike(tensors):  # as a rule
        return _group_norms(list(tensors), tensors[0].dtype)
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = defaultdict(list)
    for index, tensor in enumerate(tensors):
        groups[tensor.device, tensor.dtype].append(index)
    result: list[Tensor] = [torch.empty(0)] * len(tensors)
    for (_, dtype), indices in groups.items():
        for index, norm in zip(indices, _group_norms([tensors[index] for index in indices], dtype), strict=True):
            result[index] = norm
    return result


def read_norms(tensors: Sequence[Tensor]) -> list[float]:
    """Return :func:`norms_on_device` as numbers.

    >>> read_norms([torch.tensor([3.0, 4.0]), torch.tensor([1.0])])
    [5.0, 1.0]
    """
    if _alike(tensors):  # as a rule; sorting norms by device takes longer than the check
        return torch.stack(_group_norms(list(tensors), tensors[0].dtype)).tolist()
    return read_numbers(norms_on_device(tensors))


def read_numbers(scalars: Sequence[Tensor]) -> list[float]:
    """Return the values of scalar tensors, after one transfer from each device.

    >>> read_numbers([torch.tensor(1.5), torch.tensor(2, dtype=torch.int64)])
    [1.5, 2.0]
    """
    groups: dict[torch.device, dict[torch.dtype, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, scalar in enumerate(scalars):
        groups[scalar.device][scalar.dtype].append(index)
    result = [0.0] * len(scalars)
    for parts in groups.values():
        stacks = [torch.stack([scalars[index] for index in indices]) for indices in parts.values()]
        # Counts, as integers or in float32, keep their digits in float64.
        values = stacks[0] if len(stacks) == 1 else torch.cat([stack.double() for stack in stacks])
        order = [index for indices in parts.values() for index in indices]
        for index, value in zip(order, values.tolist(), strict=True):
            result[index] = float(value)
    return result


def _alike(tensors: Sequence[Tensor]) -> bool:
    return len({tensor.dtype for tensor in tensors}) == 1 == len({tensor.device for tensor in tensors})


def _group_norms(tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    if dtype in (torch.float16, torch.bfloat16):
        # torch._foreach_norm has no dtype in torch 2.1, and norms in float16 overflow above 65504.
        return [torch.linalg.vector_norm(tensor, dtype=torch.float32) for tensor in tensors]
    return list(torch._foreach_norm(tensors, 2))
