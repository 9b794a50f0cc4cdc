"""Where torchvision's prebuilt kernels come from, and what they can compute with."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["kernel_dtype", "torchvision_kernels"]


def torchvision_kernels() -> Any:
    """Return torchvision's operators, which its import registers with torch.

    Raises:
        ImportError: torchvision is not installed.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError as error:
        raise ImportError("cvplugins.ops needs torchvision: pip install torchvision") from error
    return torch.ops.torchvision


def kernel_dtype(*tensors: torch.Tensor) -> torch.dtype:
    """Return the type that torchvision's kernels compute in: that of the tensors, float32 for bfloat16 and mixtures.

    >>> kernel_dtype(torch.zeros(1, dtype=torch.float16))
    torch.float16
    >>> kernel_dtype(torch.zeros(1, dtype=torch.bfloat16))
    torch.float32
    """
    dtypes = {tensor.dtype for tensor in tensors}
    if dtypes == {torch.bfloat16} or (len(dtypes) > 1 and torch.float64 not in dtypes):
        return torch.float32
    return torch.float64 if torch.float64 in dtypes else dtypes.pop()
