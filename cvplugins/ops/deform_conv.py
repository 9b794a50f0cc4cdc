"""Deformable convolution, plain and modulated, by torchvision's kernels with the gradients of OpenMMLab's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cvplugins.precision import at_least_float32, full_precision

from .kernels import torchvision_kernels

__all__ = ["ConvGeometry", "DeformConv2dGradients", "deform_conv2d", "deform_conv2d_backward"]

# A sampling point outside of every map that still fits into 32 bits: the kernels convert points to int.
_FAR = 1e9


@dataclass(frozen=True)
class ConvGeometry:
    """Where a convolution samples.

    Args:
        stride: Pixels between neighbouring outputs, vertical and horizontal.
        padding: Rows and columns of zeros on each side.
        dilation: Pixels between neighbouring taps of the kernel.
        groups: Groups of channels of the convolution.
        offset_groups: Groups of input channels that share their offsets.
    """

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    offset_groups: int = 1


class DeformConv2dGradients(NamedTuple):
    """Gradients by input; ``mask`` is None where the convolution has none."""

    input: Tensor
    offset: Tensor
    weight: Tensor
    mask: Tensor | None
    bias: Tensor


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    geometry: ConvGeometry | None = None,
) -> Tensor:
    """Convolve with taps that are moved by ``offset`` and, with a ``mask``, scaled by it.

    Points are sampled bilinearly; what lies outside of the map, or at NaN, is 0. Half precision is computed in
    float32. References: Dai et al., Deformable Convolutional Networks, ICCV 2017, arXiv:1703.06211; Zhu et al.,
    Deformable ConvNets v2, CVPR 2019, arXiv:1811.11168.

    Args:
        input: Floating point, shape ``(N, C, H, W)``.
        offset: Vertical and horizontal offset of each tap in turn, in pixels, shape
            ``(N, offset_groups * K_h * K_w * 2, H_out, W_out)``.
        weight: Shape ``(C_out, C / groups, K_h, K_w)``.
        mask: Factor of each tap, shape ``(N, offset_groups * K_h * K_w, H_out, W_out)``.
        bias: Shape ``(C_out,)``.
        geometry: Stride, padding, dilation and groups; those of a plain convolution without padding if None.

    Returns:
        Shape ``(N, C_out, H_out, W_out)``, dtype of ``input``.

    Raises:
        ImportError: torchvision is missing.
        RuntimeError: The shapes do not fit each other.

    Example:
        >>> image, weight = torch.arange(9.0).view(1, 1, 3, 3), torch.ones(1, 1, 1, 1)
        >>> down = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
        >>> deform_conv2d(image, down, weight)[0, 0]
        tensor([[3., 4., 5.],
                [6., 7., 8.],
                [0., 0., 0.]])
    """
    call = _kernel_arguments(input, offset, weight, mask, bias, geometry or ConvGeometry())
    with full_precision(input):
        output: Tensor = torchvision_kernels().deform_conv2d(*call)
    return output.to(input.dtype)


def deform_conv2d_backward(
    grad_output: Tensor,
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None = None,
    geometry: ConvGeometry | None = None,
) -> DeformConv2dGradients:
    """Return the gradients of :func:`deform_conv2d`, in the dtypes of its inputs.

    A point exactly one pixel outside of the map has no gradient for its offset, as in OpenMMLab's kernels; autograd
    through torchvision takes the slope towards the map there. That matters because offsets start at 0: with padding 1
    all points of the border are such points in the first iteration.

    Args:
        grad_output: Shape ``(N, C_out, H_out, W_out)``.
        input: As in the forward call.
        offset: As in the forward call.
        weight: As in the forward call.
        mask: As in the forward call.
        geometry: As in the forward call.

    Returns:
        One gradient for each input. That of the bias is the sum of ``grad_output`` over images and pixels.

    Raises:
        ImportError: torchvision is missing.
        RuntimeError: The shapes do not fit each other.
    """
    geometry = geometry or ConvGeometry()
    call = _kernel_arguments(input, offset, weight, mask, None, geometry)
    with full_precision(input):
        gradients = torchvision_kernels()._deform_conv2d_backward(grad_output.to(call[0].dtype), *call)
    of_input, of_weight, of_offset, of_mask, of_bias = gradients
    of_offset = of_offset.masked_fill(_outside(call[2], weight, geometry), 0)
    return DeformConv2dGradients(
        input=of_input.to(input.dtype),
        offset=of_offset.to(offset.dtype),
        weight=of_weight.to(weight.dtype),
        mask=None if mask is None else of_mask.to(mask.dtype),
        bias=of_bias.to(weight.dtype),
    )


def _kernel_arguments(
    input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, bias: Tensor | None, geometry: ConvGeometry
) -> tuple[Any, ...]:
    """Return what torchvision's kernels take: one dtype, and a mask and a bias in any case."""
    input, weight = at_least_float32(input), at_least_float32(weight)
    # torchvision's kernels read out of bounds at a NaN, which ends the process.
    offset = at_least_float32(offset).nan_to_num(nan=-_FAR, posinf=_FAR, neginf=-_FAR)
    return (
        input,
        weight,
        offset,
        offset.new_zeros(len(offset), 1) if mask is None else at_least_float32(mask),
        weight.new_zeros(len(weight)) if bias is None else at_least_float32(bias),
        *geometry.stride,
        *geometry.padding,
        *geometry.dilation,
        geometry.groups,
        geometry.offset_groups,
        mask is not None,
    )


def _outside(offset: Tensor, weight: Tensor, geometry: ConvGeometry) -> Tensor:
    """Return a mask in the shape of ``offset``: the points one pixel or more above or left of the map."""
    # (N, G, K_h, K_w, 2, H_out, W_out)
    taps = torch.unflatten(offset, 1, (geometry.offset_groups, *weight.shape[2:], 2))
    rows, columns = (
        torch.arange(taps.shape[5 + axis], device=offset.device) * geometry.stride[axis]
        - geometry.padding[axis]
        + torch.arange(taps.shape[2 + axis], device=offset.device)[:, None] * geometry.dilation[axis]
        for axis in (0, 1)
    )
    above = taps[:, :, :, :, 0] + rows[:, None, :, None] <= -1
    left = taps[:, :, :, :, 1] + columns[None, :, None, :] <= -1
    return (above | left).unsqueeze(4).expand_as(taps).reshape_as(offset)
