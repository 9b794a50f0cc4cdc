"""Multi-scale deformable attention in torch: every output is a weighted sum of rows of one table.

Each sample is a weighted sum of up to four pixels, so an output is one of ``4 * levels * points`` rows, which
``embedding_bag`` adds without storing what it read. The gradient of the table is the same sum with the roles of outputs
and pixels exchanged, after a sort. Nothing is added atomically: the results are the same in every run, on a GPU too.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["backward", "forward"]

# Numbers that are gathered at once for the gradient of the weights: what a CPU's cache holds, and what fills a GPU.
GATHERED_ON_CPU, GATHERED_ON_GPU = 2**19, 2**24


class _Samples(NamedTuple):
    """Where the samples lie. ``(B, Q, H, L * P)`` each; those of the four corners have one more axis before the last.

    Corners are ordered (top left, top right, bottom left, bottom right).
    """

    right: Tensor  # share of the right column
    bottom: Tensor  # share of the bottom row
    size: Tensor  # (L * P, 2): height and width
    rows: Tensor  # of the table, for each corner; its last row, which is zero, outside the image
    shares: Tensor  # of each corner; they sum to 1


def forward(
    value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, locations: Tensor, weights: Tensor
) -> Tensor:
    """Return ``(B, Q, H * D)``; see :func:`cvplugins.ops.multi_scale_deformable_attention`."""
    batch, _, heads, channels = value.shape
    queries = locations.shape[1]
    table = _table(value)
    samples = _samples(value, table, spatial_shapes, level_start_index, locations)
    attention = weights.flatten(3).to(table.dtype)
    factors = samples.shares.mul_(attention[..., None, :])
    output = F.embedding_bag(
        samples.rows.flatten(0, 2).flatten(1), table, per_sample_weights=factors.flatten(0, 2).flatten(1), mode="sum"
    )
    return output.view(batch, queries, heads * channels).to(value.dtype)


def backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    locations: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of ``value``, ``locations`` and ``weights``."""
    table = _table(value)
    outer = grad_output.reshape(-1, value.shape[-1]).to(table.dtype)
    samples = _samples(value, table, spatial_shapes, level_start_index, locations)
    attention = weights.flatten(3).to(table.dtype)

    slopes = _dot_products(table, samples.rows.flatten(0, 2).flatten(1), outer).view_as(samples.shares)
    grad_weights = (slopes * samples.shares).sum(-2)
    top_left, top_right, bottom_left, bottom_right = slopes.unbind(-2)
    height, width = samples.size.unbind(-1)
    grad_x = torch.lerp(top_right - top_left, bottom_right - bottom_left, samples.bottom) * attention * width
    grad_y = torch.lerp(bottom_left - top_left, bottom_right - top_right, samples.right) * attention * height
    grad_locations = torch.stack([grad_x, grad_y], -1)

    factors = samples.shares.mul_(attention[..., None, :])
    grad_table = _scattered_sum(samples.rows.flatten(), factors.flatten(), outer, table.shape[0])
    return (
        grad_table[:-1].view_as(value).to(value.dtype),
        grad_locations.view_as(locations).to(locations.dtype),
        grad_weights.view_as(weights).to(weights.dtype),
    )


def _table(value: Tensor) -> Tensor:
    """Return the pixels of all heads as rows ``(B * S * H + 1, D)``, of which the last is zero."""
    dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    rows = value.reshape(-1, value.shape[-1]).to(dtype)
    return torch.cat([rows, rows.new_zeros(1, rows.shape[1])])


def _samples(
    value: Tensor, table: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, locations: Tensor
) -> _Samples:
    batch, pixels, heads, _ = value.shape
    points = locations.shape[4]
    empty = table.shape[0] - 1
    # Half the size, and twice the speed of the sort.
    integer = torch.int32 if empty < 2**31 else torch.int64
    size = spatial_shapes.repeat_interleave(points, 0)
    x, y = locations.to(table.dtype).flatten(3, 4).unbind(-1)
    x, y = x * size[:, 1] - 0.5, y * size[:, 0] - 0.5
    left, top = x.floor(), y.floor()
    # With NaN and infinity these are NaN, which the output shows.
    right, bottom = x.sub_(left), y.sub_(top)
    shares = torch.stack(
        [(1 - bottom) * (1 - right), (1 - bottom) * right, bottom * (1 - right), bottom * right], dim=-2
    )
    inside_x = (left >= 0) & (left < size[:, 1]), (left >= -1) & (left < size[:, 1] - 1)
    inside_y = (top >= 0) & (top < size[:, 0]), (top >= -1) & (top < size[:, 0] - 1)
    # Far outside, a number is too large for an integer; what is clamped is outside still.
    column = left.nan_to_num_(0).clamp_(-2).minimum(size[:, 1]).to(integer)
    line = top.nan_to_num_(0).clamp_(-2).minimum(size[:, 0]).to(integer)
    first = torch.arange(batch, device=value.device)[:, None, None] * pixels * heads
    first = (first + torch.arange(heads, device=value.device))[..., None]  # (B, 1, H, 1)
    start = level_start_index.repeat_interleave(points)
    width = size[:, 1].to(integer)
    row = (first + start * heads).to(integer) + (line * width + column) * heads
    rows = torch.stack(
        [
            torch.where(inside_y[down] & inside_x[aside], row + (down * width + aside) * heads, empty)
            for down in (0, 1)
            for aside in (0, 1)
        ],
        dim=-2,
    )
    return _Samples(right, bottom, size, rows, shares)


def _dot_products(table: Tensor, rows: Tensor, outer: Tensor) -> Tensor:
    """Return the products of the rows of the table that each output ``(N, K)`` sums with its gradient ``(N, D)``."""
    products = outer.new_empty(rows.shape)
    at_once = GATHERED_ON_GPU if outer.is_cuda else GATHERED_ON_CPU
    step = max(1, at_once // max(1, rows.shape[1] * outer.shape[1]))
    for begin in range(0, rows.shape[0], step):
        piece = slice(begin, begin + step)
        gathered = table.index_select(0, rows[piece].flatten()).view(*rows[piece].shape, outer.shape[1])
        torch.sum(gathered.mul_(outer[piece, None]), -1, out=products[piece])
    return products


def _scattered_sum(rows: Tensor, factors: Tensor, outer: Tensor, num_rows: int) -> Tensor:
    """Return the sums of the outputs' gradients by row: the rows of one output follow each other."""
    if rows.numel() == 0:
        return outer.new_zeros(num_rows, outer.shape[1])
    of_each = rows.numel() // outer.shape[0]
    rows, order = rows.sort(stable=True)
    begin = torch.searchsorted(rows, torch.arange(num_rows, device=rows.device, dtype=rows.dtype))
    output = order.div(of_each, rounding_mode="floor")
    return F.embedding_bag(output, outer, begin, per_sample_weights=factors[order], mode="sum")
