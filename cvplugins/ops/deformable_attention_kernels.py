"""Multi-scale deformable attention in Triton: one program for a block of queries, one head of one image.

Numbers are loaded in their own type and computed in float32 (float64 for a float64 ``value``). All channels of a head
lie side by side, so a pixel is read by few threads at once, and neighbouring queries, which look at neighbouring
pixels, share a program and its cache. The backward pass reduces the gradients of locations and weights within the
program; only that of ``value`` needs atomic additions, always in float32 or float64: GPUs before Hopper have none, or
slow ones, for bfloat16, and sums of many halves would lose what is small.

A program of the backward pass takes the channels of a pixel at once, each thread several that lie side by side, or
eight at a time, each thread one. The first needs fewer instructions, and is taken where the GPU adds vectors atomically
(Hopper and later). Elsewhere an atomic addition of the second fills whole sectors of memory, and both are tried.
"""

# mypy: disable-error-code="import-untyped, no-untyped-call, no-untyped-def, untyped-decorator"
from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["backward", "backward_kernel", "forward", "forward_kernel", "options_of", "try_on"]


# What one atomic addition of float32 moves in memory: 32 bytes.
CHANNELS_OF_A_SECTOR = 8


@triton.jit
def _along_axis(location, size, there, ACCUMULATED: tl.constexpr):
    """Return the lower pixel, the share of the upper one, and whether the lower and the upper one exist."""
    position = location.to(ACCUMULATED) * size - 0.5
    lower = tl.math.floor(position)
    # Compared as numbers: false for NaN, whose share makes the output NaN, but which reads and adds nothing.
    lower_exists = there & (lower >= 0) & (lower < size)
    upper_exists = there & (lower >= -1) & (lower < size - 1)
    # Far outside, a number is too large for an integer, and NaN is none; what is clamped is outside still.
    pixel = tl.minimum(tl.where(lower > -2, lower, -2.0), size.to(ACCUMULATED)).to(tl.int32)
    return pixel, position - lower, lower_exists, upper_exists


@triton.jit(do_not_specialize=["num_pixels", "num_queries"])
def forward_kernel(
    value_ptr,
    shapes_ptr,
    starts_ptr,
    locations_ptr,
    weights_ptr,
    output_ptr,
    num_pixels,
    num_queries,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    ACCUMULATED: tl.constexpr,
    PADDED: tl.constexpr,
    QUERIES: tl.constexpr,
):
    """Write the output of ``QUERIES`` queries; ``PADDED`` is the next power of two of ``CHANNELS``."""
    program = tl.program_id(0)
    head = program % HEADS
    blocks = tl.cdiv(num_queries, QUERIES)
    image = (program // HEADS // blocks).to(tl.int64)
    query = (program // HEADS % blocks) * QUERIES + tl.arange(0, QUERIES)
    there = query < num_queries
    row = (image * num_queries + query) * HEADS + head
    channel = tl.arange(0, PADDED)
    in_channels = channel < CHANNELS

    below = HEADS * CHANNELS
    image_ptr = value_ptr + image * num_pixels * below + head * CHANNELS
    total = tl.zeros([QUERIES, PADDED], dtype=ACCUMULATED)
    for level in range(LEVELS):
        height = tl.load(shapes_ptr + 2 * level).to(tl.int32)
        width = tl.load(shapes_ptr + 2 * level + 1).to(tl.int32)
        start = tl.load(starts_ptr + level).to(tl.int32)
        for point in tl.static_range(POINTS):
            sample = (row * LEVELS + level) * POINTS + point
            x = tl.load(locations_ptr + 2 * sample, mask=there, other=0.0)
            y = tl.load(locations_ptr + 2 * sample + 1, mask=there, other=0.0)
            weight = tl.load(weights_ptr + sample, mask=there, other=0.0).to(ACCUMULATED)
            left, right_share, left_exists, right_exists = _along_axis(x, width, there, ACCUMULATED)
            top, bottom_share, top_exists, bottom_exists = _along_axis(y, height, there, ACCUMULATED)

            pixel = (start + top * width + left).to(tl.int64)
            corner = image_ptr + (pixel * below)[:, None] + channel[None, :]
            next_line = width.to(tl.int64) * below
            in_tile = in_channels[None, :]
            top_left = tl.load(corner, mask=(top_exists & left_exists)[:, None] & in_tile, other=0.0)
            top_right = tl.load(corner + below, mask=(top_exists & right_exists)[:, None] & in_tile, other=0.0)
            corner += next_line
            bottom_left = tl.load(corner, mask=(bottom_exists & left_exists)[:, None] & in_tile, other=0.0)
            bottom_right = tl.load(corner + below, mask=(bottom_exists & right_exists)[:, None] & in_tile, other=0.0)

            top_weight, bottom_weight = (1 - bottom_share) * weight, bottom_share * weight
            total += top_left.to(ACCUMULATED) * (top_weight * (1 - right_share))[:, None]
            total += top_right.to(ACCUMULATED) * (top_weight * right_share)[:, None]
            total += bottom_left.to(ACCUMULATED) * (bottom_weight * (1 - right_share))[:, None]
            total += bottom_right.to(ACCUMULATED) * (bottom_weight * right_share)[:, None]
    output = output_ptr + (row * CHANNELS)[:, None] + channel[None, :]
    tl.store(output, total.to(output_ptr.dtype.element_ty), mask=there[:, None] & in_channels[None, :])


@triton.jit(do_not_specialize=["num_pixels", "num_queries"])
def backward_kernel(
    outer_ptr,
    value_ptr,
    shapes_ptr,
    starts_ptr,
    locations_ptr,
    weights_ptr,
    grad_value_ptr,
    grad_locations_ptr,
    grad_weights_ptr,
    num_pixels,
    num_queries,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    ACCUMULATED: tl.constexpr,
    PADDED: tl.constexpr,
    QUERIES: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    """Write the gradients of locations and weights of ``QUERIES`` queries, and add theirs to that of ``value``.

    ``AT_ONCE`` channels are taken at once: all, or as many as there are threads for one query.
    """
    program = tl.program_id(0)
    head = program % HEADS
    blocks = tl.cdiv(num_queries, QUERIES)
    image = (program // HEADS // blocks).to(tl.int64)
    query = (program // HEADS % blocks) * QUERIES + tl.arange(0, QUERIES)
    there = query < num_queries
    row = (image * num_queries + query) * HEADS + head
    # How many channels a thread takes side by side is for the atomic additions to decide, not for the loads.
    channel = tl.max_contiguous(tl.arange(0, AT_ONCE), 4 if AT_ONCE == PADDED else 1)

    below = HEADS * CHANNELS
    image_offset = image * num_pixels * below + head * CHANNELS
    outer_row = outer_ptr + (row * CHANNELS)[:, None]
    if AT_ONCE == PADDED:
        all_outer = tl.load(
            outer_row + channel[None, :], mask=there[:, None] & (channel < CHANNELS)[None, :], other=0.0
        ).to(ACCUMULATED)
    for level in range(LEVELS):
        height = tl.load(shapes_ptr + 2 * level).to(tl.int32)
        width = tl.load(shapes_ptr + 2 * level + 1).to(tl.int32)
        start = tl.load(starts_ptr + level).to(tl.int32)
        # Those of a level lie side by side in memory: gathered along the channels, they are written at once.
        grad_locations = tl.zeros([QUERIES, AT_ONCE], dtype=ACCUMULATED)
        grad_weights = tl.zeros([QUERIES, AT_ONCE], dtype=ACCUMULATED)
        for point in tl.static_range(POINTS):
            sample = (row * LEVELS + level) * POINTS + point
            x = tl.load(locations_ptr + 2 * sample, mask=there, other=0.0)
            y = tl.load(locations_ptr + 2 * sample + 1, mask=there, other=0.0)
            weight = tl.load(weights_ptr + sample, mask=there, other=0.0).to(ACCUMULATED)
            left, right_share, left_exists, right_exists = _along_axis(x, width, there, ACCUMULATED)
            top, bottom_share, top_exists, bottom_exists = _along_axis(y, height, there, ACCUMULATED)

            pixel = (start + top * width + left).to(tl.int64)
            next_line = width.to(tl.int64) * below
            left_share, top_share = 1 - right_share, 1 - bottom_share
            top_left_slope = tl.zeros([QUERIES, AT_ONCE], dtype=ACCUMULATED)
            top_right_slope = tl.zeros([QUERIES, AT_ONCE], dtype=ACCUMULATED)
            bottom_left_slope = tl.zeros([QUERIES, AT_ONCE], dtype=ACCUMULATED)
            bottom_right_slope = tl.zeros([QUERIES, AT_ONCE], dtype=ACCUMULATED)
            for begin in range(0, PADDED, AT_ONCE):
                in_tile = (channel + begin < CHANNELS)[None, :]
                if AT_ONCE == PADDED:
                    outer = all_outer
                else:
                    outer = tl.load(outer_row + begin + channel[None, :], mask=there[:, None] & in_tile, other=0.0)
                    outer = outer.to(ACCUMULATED)
                corner = image_offset + (pixel * below)[:, None] + (channel + begin)[None, :]
                added = outer * weight[:, None]

                mask = (top_exists & left_exists)[:, None] & in_tile
                top_left_slope += outer * tl.load(value_ptr + corner, mask=mask, other=0.0).to(ACCUMULATED)
                share = (top_share * left_share)[:, None]
                tl.atomic_add(grad_value_ptr + corner, added * share, mask=mask, sem="relaxed")

                mask = (top_exists & right_exists)[:, None] & in_tile
                corner += below
                top_right_slope += outer * tl.load(value_ptr + corner, mask=mask, other=0.0).to(ACCUMULATED)
                share = (top_share * right_share)[:, None]
                tl.atomic_add(grad_value_ptr + corner, added * share, mask=mask, sem="relaxed")

                mask = (bottom_exists & right_exists)[:, None] & in_tile
                corner += next_line
                bottom_right_slope += outer * tl.load(value_ptr + corner, mask=mask, other=0.0).to(ACCUMULATED)
                share = (bottom_share * right_share)[:, None]
                tl.atomic_add(grad_value_ptr + corner, added * share, mask=mask, sem="relaxed")

                mask = (bottom_exists & left_exists)[:, None] & in_tile
                corner -= below
                bottom_left_slope += outer * tl.load(value_ptr + corner, mask=mask, other=0.0).to(ACCUMULATED)
                share = (bottom_share * left_share)[:, None]
                tl.atomic_add(grad_value_ptr + corner, added * share, mask=mask, sem="relaxed")

            top_left_sum, top_right_sum = tl.sum(top_left_slope, 1), tl.sum(top_right_slope, 1)
            bottom_left_sum, bottom_right_sum = tl.sum(bottom_left_slope, 1), tl.sum(bottom_right_slope, 1)
            top_sum = top_left_sum * left_share + top_right_sum * right_share
            bottom_sum = bottom_left_sum * left_share + bottom_right_sum * right_share
            along_x = (top_right_sum - top_left_sum) * top_share + (bottom_right_sum - bottom_left_sum) * bottom_share
            grad_weight = top_sum * top_share + bottom_sum * bottom_share
            grad_x, grad_y = along_x * width * weight, (bottom_sum - top_sum) * height * weight
            for_x, for_y = (channel == 2 * point)[None, :], (channel == 2 * point + 1)[None, :]
            grad_locations = tl.where(for_x, grad_x[:, None], tl.where(for_y, grad_y[:, None], grad_locations))
            grad_weights = tl.where((channel == point)[None, :], grad_weight[:, None], grad_weights)
        first = (row * LEVELS + level) * POINTS
        tl.store(
            grad_locations_ptr + (2 * first)[:, None] + channel[None, :],
            grad_locations.to(grad_locations_ptr.dtype.element_ty),
            mask=there[:, None] & (channel < 2 * POINTS)[None, :],
        )
        tl.store(
            grad_weights_ptr + first[:, None] + channel[None, :],
            grad_weights.to(grad_weights_ptr.dtype.element_ty),
            mask=there[:, None] & (channel < POINTS)[None, :],
        )


@triton.jit
def _one(output_ptr):
    tl.store(output_ptr, 1.0)


def try_on(device: int) -> None:
    """Compile a kernel and run it on a GPU; with an index below 0, in the interpreter.

    Raises:
        Exception: Whatever keeps Triton from starting.
    """
    output = torch.zeros(1, device=f"cuda:{device}" if device >= 0 else "cpu")
    with torch.cuda.device_of(output):
        _one[(1,)](output)


def forward(
    value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, locations: Tensor, weights: Tensor
) -> Tensor:
    """Return ``(B, Q, H * D)``; see :func:`cvplugins.ops.multi_scale_deformable_attention`."""
    batch, pixels, heads, channels = value.shape
    queries = locations.shape[1]
    output = value.new_empty(batch, queries, heads * channels)
    if output.numel() == 0:
        return output
    arguments = [each.contiguous() for each in (value, spatial_shapes, level_start_index, locations, weights)]
    sizes = _sizes(value, locations)
    with torch.cuda.device_of(value):
        _tuned(forward_kernel, sizes["PADDED"], sizes["POINTS"], value.device)[_grid(batch, queries, heads)](
            *arguments, output, pixels, queries, **sizes
        )
    return output


def backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    locations: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of ``value``, ``locations`` and ``weights``."""
    batch, pixels, heads, _ = value.shape
    queries = locations.shape[1]
    accumulated = torch.float64 if value.dtype == torch.float64 else torch.float32
    grad_value = torch.zeros(value.shape, dtype=accumulated, device=value.device)
    grad_locations = torch.empty(locations.shape, dtype=locations.dtype, device=value.device)
    grad_weights = torch.empty(weights.shape, dtype=weights.dtype, device=value.device)
    if grad_locations.numel() == 0 or grad_value.numel() == 0:
        return grad_value.to(value.dtype), grad_locations.zero_(), grad_weights.zero_()
    tensors = (grad_output, value, spatial_shapes, level_start_index, locations, weights)
    arguments = [each.contiguous() for each in tensors]
    sizes = _sizes(value, locations)
    with torch.cuda.device_of(value):
        _tuned(backward_kernel, sizes["PADDED"], sizes["POINTS"], value.device)[_grid(batch, queries, heads)](
            *arguments, grad_value, grad_locations, grad_weights, pixels, queries, **sizes
        )
    return grad_value.to(value.dtype), grad_locations, grad_weights


def _sizes(value: Tensor, locations: Tensor) -> dict[str, Any]:
    """Return what the kernels are compiled for."""
    _, _, heads, channels = value.shape
    _, _, _, levels, points, _ = locations.shape
    return {
        "HEADS": heads,
        "CHANNELS": channels,
        "LEVELS": levels,
        "POINTS": points,
        "ACCUMULATED": tl.float64 if value.dtype == torch.float64 else tl.float32,
        "PADDED": triton.next_power_of_2(max(channels, 2 * points, 4)),
    }


def _grid(batch: int, queries: int, heads: int) -> Callable[[dict[str, Any]], tuple[int]]:
    """Return the number of programs; all in the first dimension, for the others end at 65,535."""
    return lambda options: (batch * heads * triton.cdiv(queries, options["QUERIES"]),)


@cache
def _tuned(kernel: Any, padded: int, points: int, device: torch.device) -> Any:
    """Return a kernel that tries its options once in a process for each kind of arguments, not for each size of image.

    In Triton's interpreter there is nothing to try.
    """
    options = options_of(kernel, padded, points, adds_vectors=_adds_vectors(device))
    if device.type == "cpu":
        options = options[:1]
    return triton.autotune(
        [triton.Config(sizes, num_warps=warps, num_stages=1) for sizes, warps in options],
        key=["HEADS", "CHANNELS", "LEVELS", "POINTS"],
        reset_to_zero=["grad_value_ptr"] if kernel is backward_kernel else None,
    )(kernel)


def _adds_vectors(device: torch.device) -> bool:
    """Return whether a GPU has atomic additions of several float32 at once."""
    return device.type == "cpu" or torch.cuda.get_device_capability(device) >= (9, 0)


def options_of(kernel: Any, padded: int, points: int, *, adds_vectors: bool) -> list[tuple[dict[str, int], int]]:
    """Return the sizes of a program and its number of warps that are tried."""

    def queries(numbers: int) -> int:
        return max(1, numbers // padded)

    if kernel is forward_kernel:
        return [({"QUERIES": queries(numbers)}, warps) for numbers, warps in ((512, 4), (1024, 4), (512, 2))]
    # A program gathers the two coordinates of all points of a level along its channels.
    if adds_vectors or padded <= CHANNELS_OF_A_SECTOR or 2 * points > CHANNELS_OF_A_SECTOR:
        return [
            ({"QUERIES": queries(numbers), "AT_ONCE": padded}, warps)
            for numbers, warps in ((512, 4), (1024, 4), (256, 2))
        ]
    return [
        ({"QUERIES": 16, "AT_ONCE": CHANNELS_OF_A_SECTOR}, 4),
        ({"QUERIES": 16, "AT_ONCE": CHANNELS_OF_A_SECTOR}, 2),
        ({"QUERIES": queries(512), "AT_ONCE": padded}, 4),
    ]
