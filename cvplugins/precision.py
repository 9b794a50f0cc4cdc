"""The precision in which losses and operators compute."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["at_least_float32", "full_precision"]


def at_least_float32(values: Tensor) -> Tensor:
    """Return half precision as float32, and anything wider as it is.

    >>> at_least_float32(torch.zeros(1, dtype=torch.float16)).dtype
    torch.float32
    """
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def full_precision(values: Tensor) -> torch.autocast:
    """Return a context in which autocast leaves matrix products alone.

    Elementwise functions compute in the type of their input; products of matrices are what autocast would round.

    >>> with torch.autocast("cpu"), full_precision(torch.ones(2, 2)):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.float32
    """
    return torch.autocast(values.device.type, enabled=False)
