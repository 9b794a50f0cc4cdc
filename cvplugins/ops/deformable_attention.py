"""Multi-scale deformable attention, which Mask2Former's pixel decoder and Deformable DETR spend their time in."""

from __future__ import annotations

import logging
import os
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from cvplugins.errors import first_line

from . import deformable_attention_torch

__all__ = [
    "deformable_attention_backward",
    "deformable_attention_forward",
    "multi_scale_deformable_attention",
]

logger = logging.getLogger(__name__)

# The first with tl.atomic_add, jit and autotune as they are used here, and with an interpreter.
OLDEST_TRITON = (3, 0)


def multi_scale_deformable_attention(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Sum bilinear samples of several feature maps with weights, for every query and head.

    What the CUDA operator of Deformable DETR computes (Zhu et al., ICLR 2021, arXiv:2010.04159): ``grid_sample`` of
    every level with ``align_corners=False`` and zeros outside, times ``attention_weights``, summed.

    On a GPU Triton computes it. Without Triton (3.0 or later, which needs a C compiler and Python's headers for its
    first start), and on other devices, torch does; a message of this module's logger says why. Both keep nothing but
    the arguments for the backward pass. There is no second derivative.

    The arguments may differ in type. Half precision is computed in float32, positions too, so that nothing has to be
    cast under autocast; the result has the type of ``value`` and every gradient that of its argument.

    On a GPU the gradient of ``value`` is added atomically and differs in its last bits between runs. With
    ``torch.use_deterministic_algorithms(True)`` torch computes the gradients, the same in every run but slower.

    A location that is NaN or infinite makes the output of its query and head NaN, and no other.

    Args:
        value: Pixels of all levels, one level after the other, line by line, ``(B, S, H, D)`` for ``H`` heads with
            ``D`` channels each; floating point.
        spatial_shapes: Height and width of each level, integers ``(L, 2)``, on the device of ``value``. Their products
            must sum to ``S``; this is not checked on a GPU, where it would wait for the device.
        level_start_index: Index of the first pixel of each level, integers ``(L,)``.
        sampling_locations: ``(x, y)`` of each sample, ``(B, Q, H, L, P, 2)`` for ``Q`` queries with ``P`` points on
            each level; (0, 0) is the corner of the image at the top left, (1, 1) the one at the bottom right.
        attention_weights: Factor of each sample, ``(B, Q, H, L, P)``.

    Returns:
        ``(B, Q, H * D)``.

    Raises:
        ValueError: The arguments do not fit each other.

    Example:
        >>> value = torch.arange(4.0).view(1, 4, 1, 1)  # one level of 2 x 2 pixels
        >>> middle = torch.full((1, 1, 1, 1, 1, 2), 0.5)
        >>> multi_scale_deformable_attention(
        ...     value, torch.tensor([[2, 2]]), torch.tensor([0]), middle, torch.ones(1, 1, 1, 1, 1)
        ... )
        tensor([[[1.5000]]])
    """
    _check(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    output: Tensor = _DeformableAttention.apply(  # type: ignore[no-untyped-call]
        value, spatial_shapes, level_start_index, sampling_locations, attention_weights
    )
    return output


def deformable_attention_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Return the output without a graph, for callers with a backward pass of their own.

    See :func:`multi_scale_deformable_attention`.
    """
    _check(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    output: Tensor = torch.ops.cvplugins.deformable_attention(
        value, spatial_shapes, level_start_index, sampling_locations, attention_weights
    )
    return output


def deformable_attention_backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of ``value``, ``sampling_locations`` and ``attention_weights``.

    ``grad_output`` ``(B, Q, H * D)`` is the gradient of the output; see :func:`multi_scale_deformable_attention`.
    """
    _check(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.cvplugins.deformable_attention_backward(
        grad_output, value, spatial_shapes, level_start_index, sampling_locations, attention_weights
    )
    return gradients


class _DeformableAttention(Function):
    """The two operators below, joined."""

    @staticmethod
    def forward(ctx: Any, *arguments: Tensor) -> Tensor:
        ctx.save_for_backward(*arguments)
        output: Tensor = torch.ops.cvplugins.deformable_attention(*arguments)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        grad_value, grad_locations, grad_weights = torch.ops.cvplugins.deformable_attention_backward(
            grad_output, *ctx.saved_tensors
        )
        return grad_value, None, None, grad_locations, grad_weights


def _forward(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    if shapes.device.type == "cpu" and int(shapes.prod(1).sum()) != value.shape[1]:
        raise ValueError(
            f"value has {value.shape[1]} pixels; spatial_shapes {shapes.tolist()} have {int(shapes.prod(1).sum())}"
        )
    kernels = _kernels(value)
    compute = deformable_attention_torch if kernels is None else kernels
    output: Tensor = compute.forward(value, shapes, starts, locations, weights)
    return output


def _backward(
    grad_output: Tensor, value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    kernels = None if torch.are_deterministic_algorithms_enabled() else _kernels(value)
    compute = deformable_attention_torch if kernels is None else kernels
    gradients: tuple[Tensor, Tensor, Tensor] = compute.backward(grad_output, value, shapes, starts, locations, weights)
    return gradients


def _forward_shape(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    return value.new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])


def _backward_shapes(
    grad_output: Tensor, value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    value, locations, weights = (each.new_empty(each.shape) for each in (value, locations, weights))
    return value, locations, weights


# Operators of torch, so that torch.compile takes each as it is. Triton is chosen within.
_LIBRARY: Any = torch.library.Library("cvplugins", "FRAGMENT")  # type: ignore[no-untyped-call]
_TENSORS = "Tensor value, Tensor shapes, Tensor starts, Tensor locations, Tensor weights"
_LIBRARY.define(f"deformable_attention({_TENSORS}) -> Tensor")
_LIBRARY.define(f"deformable_attention_backward(Tensor grad_output, {_TENSORS}) -> (Tensor, Tensor, Tensor)")
_LIBRARY.impl("deformable_attention", _forward, "CompositeExplicitAutograd")
_LIBRARY.impl("deformable_attention_backward", _backward, "CompositeExplicitAutograd")
_LIBRARY.impl("deformable_attention", _forward_shape, "Meta")
_LIBRARY.impl("deformable_attention_backward", _backward_shapes, "Meta")


def _kernels(value: Tensor) -> ModuleType | None:
    """Return the module of the Triton kernels where they can compute with a tensor."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return _loaded_kernels(-1)
    if not value.is_cuda:
        return None
    kernels = _loaded_kernels(value.device.index)
    if value.dtype == torch.bfloat16 and torch.cuda.get_device_capability(value.device) < (8, 0):
        return None  # Triton has no bfloat16 there
    return kernels


@cache
def _loaded_kernels(device: int) -> ModuleType | None:
    """Return the module of the Triton kernels, or None and a message: once for each GPU."""
    instead = "multi-scale deformable attention is computed by torch, more slowly"
    try:
        import triton  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        logger.warning("%s: triton can not be imported (%s); pip install triton", instead, first_line(error))
        return None
    oldest = ".".join(map(str, OLDEST_TRITON))
    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < OLDEST_TRITON:
        logger.warning("%s: triton is %s; it needs %s or later", instead, triton.__version__, oldest)
        return None
    from . import deformable_attention_kernels

    try:
        deformable_attention_kernels.try_on(device)
    except Exception as error:  # whatever a compiler, a driver or a missing header raises
        logger.warning(
            "%s: triton can not start (%s); it needs a C compiler (CC) and Python's headers (python3-dev)",
            instead,
            first_line(error),
        )
        return None
    return deformable_attention_kernels


def _check(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> None:
    """Compare the shapes."""
    if value.dim() != 4 or locations.dim() != 6 or locations.shape[-1] != 2:
        raise ValueError(
            f"value is {tuple(value.shape)} and sampling_locations {tuple(locations.shape)}; "
            "expected (B, S, H, D) and (B, Q, H, L, P, 2)"
        )
    batch, _, heads, _ = value.shape
    levels = locations.shape[3]
    if locations.shape[0] != batch or locations.shape[2] != heads:
        raise ValueError(
            f"value {tuple(value.shape)} and sampling_locations {tuple(locations.shape)} differ in batch or heads; "
            "expected (B, S, H, D) and (B, Q, H, L, P, 2)"
        )
    if weights.shape != locations.shape[:-1]:
        raise ValueError(
            f"attention_weights are {tuple(weights.shape)}; expected {tuple(locations.shape[:-1])}, one for each sample"
        )
    if shapes.shape != (levels, 2) or starts.shape != (levels,):
        raise ValueError(
            f"spatial_shapes are {tuple(shapes.shape)} and level_start_index {tuple(starts.shape)}; "
            f"expected {(levels, 2)} and {(levels,)} for the {levels} levels of sampling_locations"
        )
    if len({each.device for each in (value, shapes, starts, locations, weights)}) != 1:
        raise ValueError(
            f"value is on {value.device}, spatial_shapes on {shapes.device}, level_start_index on {starts.device}, "
            f"sampling_locations on {locations.device}, attention_weights on {weights.device}; expected one device"
        )
