"""Formulas of mmcv's kernels (mmcv/ops/csrc), slow and differentiable: the oracles of convolution-like operators."""

from __future__ import annotations

import torch
from torch import Tensor


def bilinear(image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Sample ``(N, C, H, W)`` at ``(N, P)``: ``deformable_im2col_bilinear``, whose derivatives autograd takes.

    Like ``get_coordinate_weight`` it has no slope at a point one pixel outside of the map or farther.
    """
    height, width = image.shape[2:]
    inside = (y > -1) & (y < height) & (x > -1) & (x < width)
    y, x = torch.where(inside, y, 0), torch.where(inside, x, 0)
    top, left = y.detach().floor(), x.detach().floor()
    value = 0
    for row, factor_y in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, factor_x in ((left, 1 - (x - left)), (left + 1, x - left)):
            exists = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
            corner = image.flatten(2).gather(2, index[:, None].expand(-1, image.shape[1], -1))
            value = value + (factor_y * factor_x * exists)[:, None] * corner
    return value


def deform_conv(
    input,
    offset,
    weight,
    mask=None,
    bias=None,
    stride=(1, 1),
    padding=(0, 0),
    dilation=(1, 1),
    groups=1,
    offset_groups=1,
) -> Tensor:
    """Deformable convolution, tap by tap: ``deformable_im2col`` and the matrix product behind it."""
    kernel_h, kernel_w = weight.shape[2:]
    out_h, out_w = offset.shape[2:]
    taps = offset.view(len(offset), offset_groups, kernel_h, kernel_w, 2, out_h, out_w)
    columns = []
    for image, group in zip(input.chunk(offset_groups, dim=1), range(offset_groups), strict=True):
        for i in range(kernel_h):
            for j in range(kernel_w):
                y = torch.arange(out_h)[:, None] * stride[0] - padding[0] + i * dilation[0] + taps[:, group, i, j, 0]
                x = torch.arange(out_w) * stride[1] - padding[1] + j * dilation[1] + taps[:, group, i, j, 1]
                value = bilinear(image, y.flatten(1), x.flatten(1))
                if mask is not None:
                    value = value * mask[:, (group * kernel_h + i) * kernel_w + j].flatten(1)[:, None]
                columns.append(value)
    # (N, G, taps, C / G, P) to (N, C, taps, P)
    columns = torch.stack(columns, 1).unflatten(1, (offset_groups, kernel_h * kernel_w)).transpose(2, 3).flatten(1, 2)
    outputs = [
        torch.einsum("oct,nctp->nop", part_weight.flatten(2), part)
        for part_weight, part in zip(weight.chunk(groups), columns.chunk(groups, dim=1), strict=True)
    ]
    output = torch.cat(outputs, 1).view(len(input), len(weight), out_h, out_w)
    return output if bias is None else output + bias.view(1, -1, 1, 1)


def carafe(features: Tensor, masks: Tensor, kernel_size: int, group_size: int, scale_factor: int) -> Tensor:
    """``carafe_naive_forward_cuda_kernel``, number by number."""
    radius, (batch, channels, height, width) = (kernel_size - 1) // 2, features.shape
    output = []
    for n in range(batch):
        for c in range(channels):
            group = c // (channels // group_size)
            for y in range(height * scale_factor):
                for x in range(width * scale_factor):
                    total = features.new_zeros(())
                    for i in range(kernel_size):
                        for j in range(kernel_size):
                            row, column = y // scale_factor + i - radius, x // scale_factor + j - radius
                            if 0 <= row < height and 0 <= column < width:
                                weight = masks[n, (group * kernel_size + i) * kernel_size + j, y, x]
                                total = total + features[n, c, row, column] * weight
                    output.append(total)
    return torch.stack(output).view(batch, channels, height * scale_factor, width * scale_factor)


def psa_mask(mask: Tensor, distribute: bool, mask_size: tuple[int, int]) -> Tensor:
    """``psamask_collect_forward`` and ``psamask_distribute_forward``, number by number."""
    batch, _, height, width = mask.shape
    (mask_h, mask_w), half_h, half_w = mask_size, (mask_size[0] - 1) // 2, (mask_size[1] - 1) // 2
    output = mask.new_zeros(batch, height * width, height, width)
    for n in range(batch):
        for h in range(height):
            for w in range(width):
                for i in range(max(0, half_h - h), min(mask_h, height + half_h - h)):
                    for j in range(max(0, half_w - w), min(mask_w, width + half_w - w)):
                        y, x = i + h - half_h, j + w - half_w
                        weight = mask[n, i * mask_w + j, h, w]
                        if distribute:
                            output[n, h * width + w, y, x] = weight
                        else:
                            output[n, y * width + x, h, w] = weight
    return output
