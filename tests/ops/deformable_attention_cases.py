"""Arguments of multi-scale deformable attention, and the two formulas that it is compared with."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = ((5, 4), (3, 2))
# Batch, levels, heads, channels, queries, points.
SIZES = {
    "ordinary": (2, LEVELS, 2, 8, 7, 2),
    "one of everything": (1, ((1, 1),), 1, 1, 1, 1),
    "channels that are no power of two": (1, LEVELS, 2, 24, 5, 4),
    "odd numbers": (1, ((2, 3), (1, 7), (4, 1)), 3, 5, 3, 5),
    "more queries than a program takes": (1, LEVELS, 1, 32, 37, 1),
    "no query": (2, LEVELS, 2, 8, 0, 2),
    "no image": (0, LEVELS, 2, 8, 7, 2),
}


def arguments(size, dtype=torch.float64, seed=0):
    """Return (value, spatial_shapes, level_start_index, sampling_locations, attention_weights).

    A third of the locations lies outside the image, and the weights have both signs.
    """
    batch, levels, heads, channels, queries, points = size
    rand = torch.Generator().manual_seed(seed)
    shapes = torch.tensor(levels)
    pixels = shapes.prod(1)
    value = torch.randn(batch, int(pixels.sum()), heads, channels, generator=rand, dtype=torch.float64)
    locations = torch.rand(batch, queries, heads, len(levels), points, 2, generator=rand, dtype=torch.float64)
    weights = torch.randn(locations.shape[:-1], generator=rand, dtype=torch.float64)
    locations = locations * 1.6 - 0.3
    return (value.to(dtype), shapes, pixels.cumsum(0) - pixels, locations.to(dtype), weights.to(dtype))


def border_arguments(first, dtype=torch.float64):
    """Return arguments whose samples lie exactly on pixels, from pixel ``first`` to beyond the last one, in both axes.

    All sizes are powers of two, so that no formula rounds a location.
    """
    shapes = torch.tensor([[4, 8]])
    columns, lines = ((torch.arange(first, size + 1, dtype=dtype) + 0.5) / size for size in (8, 4))
    locations = torch.cartesian_prod(columns, lines).view(1, -1, 1, 1, 1, 2)
    value = torch.randn(1, 32, 1, 8, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return value, shapes, torch.tensor([0]), locations, torch.ones(locations.shape[:-1], dtype=dtype)


def formula(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Return grid_sample of every level, weighted and summed, in float64."""
    value, locations, weights = value.double(), locations.double(), weights.double()
    batch, _, heads, channels = value.shape
    queries = locations.shape[1]
    if batch == 0 or queries == 0:
        return (value.sum() + locations.sum() + weights.sum()) * value.new_zeros(batch, queries, heads * channels)
    total = 0
    for level, (height, width) in enumerate(shapes.tolist()):
        pixels = value[:, starts[level] : starts[level] + height * width]
        pixels = pixels.permute(0, 2, 3, 1).reshape(batch * heads, channels, height, width)
        grid = (2 * locations[:, :, :, level] - 1).transpose(1, 2).flatten(0, 1)
        sampled = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        weight = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)
        total = total + (sampled * weight[:, None]).sum(-1)
    return total.view(batch, heads, channels, queries).permute(0, 3, 1, 2).flatten(2)


def cuda_source(value, shapes, starts, locations, weights, grad_output):
    """Return output and gradients as ms_deform_attn_im2col_cuda.cuh computes them, one sample after the other."""
    output = torch.zeros(*locations.shape[:3], value.shape[3], dtype=torch.float64)
    grad_value, grad_locations, grad_weights = (torch.zeros_like(each) for each in (value, locations, weights))
    outer = grad_output.view_as(output)
    for image, query, head, level, point in torch.cartesian_prod(*map(torch.arange, weights.shape)).tolist():
        height, width = shapes[level].tolist()
        x, y = locations[image, query, head, level, point].tolist()
        h_im, w_im = y * height - 0.5, x * width - 0.5
        if not (h_im > -1 and w_im > -1 and h_im < height and w_im < width):
            continue
        weight = weights[image, query, head, level, point]
        h_low, w_low = math.floor(h_im), math.floor(w_im)
        lh, lw = h_im - h_low, w_im - w_low
        grad_h = grad_w = sampled = torch.zeros_like(output[image, query, head])
        for h, w, along_h, along_w, slope_h, slope_w in (
            (h_low, w_low, 1 - lh, 1 - lw, -1, -1),
            (h_low, w_low + 1, 1 - lh, lw, -1, 1),
            (h_low + 1, w_low, lh, 1 - lw, 1, -1),
            (h_low + 1, w_low + 1, lh, lw, 1, 1),
        ):
            if 0 <= h < height and 0 <= w < width:
                pixel = int(starts[level]) + h * width + w
                corner = value[image, pixel, head]
                sampled = sampled + along_h * along_w * corner
                grad_h = grad_h + slope_h * along_w * corner
                grad_w = grad_w + slope_w * along_h * corner
                grad_value[image, pixel, head] += along_h * along_w * weight * outer[image, query, head]
        output[image, query, head] += weight * sampled
        grad_weights[image, query, head, level, point] = (outer[image, query, head] * sampled).sum()
        slopes = torch.stack(
            [width * (outer[image, query, head] * grad_w).sum(), height * (outer[image, query, head] * grad_h).sum()]
        )
        grad_locations[image, query, head, level, point] = slopes * weight
    return output.flatten(2), (grad_value, grad_locations, grad_weights)


def output_and_gradients(function, args):
    """Return the output of a function and the gradients of its three floating arguments, for a fixed gradient."""
    value, shapes, starts, locations, weights = args
    value, locations, weights = (each.detach().requires_grad_() for each in (value, locations, weights))
    output = function(value, shapes, starts, locations, weights)
    outer = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return output.detach(), torch.autograd.grad(output, (value, locations, weights), outer.to(output.dtype)), outer
