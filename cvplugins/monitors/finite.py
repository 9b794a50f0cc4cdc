"""Ask many tensors at once whether they are finite."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

__all__ = ["any_suspicious", "describe_nonfinite"]


@torch.no_grad()
def any_suspicious(tensors: Iterable[Tensor]) -> Tensor:
    """Return a flag on the device: False proves that all values are finite, True asks for a closer look.

    A finite norm proves finite values, in one read and without waiting for the device. Norms of large finite values
    overflow, hence "suspicious". Tensors of integers are finite. Without tensors the flag is on the CPU.

    Args:
        tensors: Of any shapes, floating dtypes and devices; sparse ones too.

    Returns:
        A float32 scalar, 0 or 1, on the device of the first tensor, so that ranks can take its maximum.

    Example:
        >>> any_suspicious([torch.ones(3), torch.tensor([0.0, float("nan")])]).item()
        1.0
    """
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        if tensor.is_sparse:
            tensor = tensor.coalesce().values()
        if tensor.is_floating_point() and tensor.numel():
            groups[tensor.device, tensor.dtype].append(tensor.detach())
    flags = [_finite_norms(members, dtype).all() for (_, dtype), members in groups.items()]
    if not flags:
        return torch.zeros(())
    home = flags[0].device
    return 1 - torch.stack([flag.to(home, non_blocking=True) for flag in flags]).all().float()


def _finite_norms(tensors: list[Tensor], dtype: torch.dtype) -> Tensor:
    if dtype in (torch.float16, torch.bfloat16):
        # torch._foreach_norm has no dtype in torch 2.1, and norms in float16 overflow above 65504.
        norms = [torch.linalg.vector_norm(tensor, dtype=torch.float32) for tensor in tensors]
    else:
        norms = list(torch._foreach_norm(tensors, 2))
    return torch.stack(norms).isfinite()


@torch.no_grad()
def describe_nonfinite(named: Mapping[str, Tensor]) -> dict[str, str]:
    """Return, for each tensor that holds NaN or infinity, how many; waits for the device once a tensor.

    Example:
        >>> describe_nonfinite({"a": torch.ones(2), "b": torch.tensor([1.0, float("inf"), float("nan")])})
        {'b': '1 NaN and 1 infinite of 3 values'}
    """
    found = {}
    for name, tensor in named.items():
        values = tensor.coalesce().values() if tensor.is_sparse else tensor
        if not values.is_floating_point() or bool(values.isfinite().all()):
            continue
        nan, infinite = int(values.isnan().sum()), int(values.isinf().sum())
        found[name] = f"{nan} NaN and {infinite} infinite of {values.numel()} values"
    return found
