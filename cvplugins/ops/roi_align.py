"""RoIAlign: each region of a feature map as a grid of bins, each bin the average or the maximum of bilinear samples.

Reference: He et al., Mask R-CNN, ICCV 2017, arXiv:1703.06870.

Regions are ``(image, x1, y1, x2, y2)`` in the image's pixels. ``aligned`` shifts them by half a pixel of the feature
map, so that a pixel's centre is where its value is; without it a region is at least one pixel wide and high.
A bin has ``sampling_ratio`` samples a side, or as many as it has pixels, rounded up, if that is 0. A sample more than
one pixel outside the map is 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from cvplugins.losses.chunks import values_at_once
from cvplugins.precision import full_precision

from .kernels import kernel_dtype, torchvision_kernels

__all__ = ["RoIGrid", "roi_align", "roi_align_backward", "roi_align_max", "roi_align_max_backward"]

FLOAT32_LOWEST = torch.finfo(torch.float32).min


class RoIGrid(NamedTuple):
    """How regions are cut into bins; see the module.

    Args:
        height: Rows of bins.
        width: Columns of bins.
        spatial_scale: Size of a pixel of the image in pixels of the feature map.
        sampling_ratio: Samples a side of a bin; 0 adapts them to its size.
        aligned: Whether regions are shifted by half a pixel.
    """

    height: int
    width: int
    spatial_scale: float = 1.0
    sampling_ratio: int = 0
    aligned: bool = True


def roi_align(features: Tensor, rois: Tensor, grid: RoIGrid) -> Tensor:
    """Return the average of each bin.

    Args:
        features: ``(N, C, H, W)``; bfloat16 is computed in float32.
        rois: ``(K, 5)``, see the module.
        grid: The bins.

    Returns:
        ``(K, C, grid.height, grid.width)`` in the type of ``features``.

    Example:
        >>> features = torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> roi_align(features, torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]]), RoIGrid(2, 2))
        tensor([[[[ 2.5000,  4.5000],
                  [10.5000, 12.5000]]]])
    """
    dtype = kernel_dtype(features, rois)
    bins = (grid.spatial_scale, grid.height, grid.width, grid.sampling_ratio, grid.aligned)
    averages: Tensor = torchvision_kernels().roi_align(features.to(dtype), rois.to(dtype), *bins)
    return averages.to(features.dtype)


def roi_align_backward(gradient: Tensor, rois: Tensor, shape: tuple[int, int, int, int], grid: RoIGrid) -> Tensor:
    """Return the gradient of the features of :func:`roi_align`.

    Args:
        gradient: That of the averages, ``(K, C, grid.height, grid.width)``.
        rois: ``(K, 5)``.
        shape: Of the features, ``(N, C, H, W)``.
        grid: The bins.

    Returns:
        ``shape``, in the type of ``gradient``.

    Example:
        >>> rois = torch.tensor([[0.0, 0.0, 0.0, 2.0, 2.0]])
        >>> roi_align_backward(torch.ones(1, 1, 1, 1), rois, (1, 1, 2, 2), RoIGrid(1, 1))
        tensor([[[[0.2500, 0.2500],
                  [0.2500, 0.2500]]]])
    """
    if gradient.is_cuda and torch.are_deterministic_algorithms_enabled():
        return _backward_by_products(gradient, rois, shape, grid)
    dtype = kernel_dtype(gradient, rois)
    size = (grid.spatial_scale, grid.height, grid.width, *shape, grid.sampling_ratio, grid.aligned)
    spread: Tensor = torchvision_kernels()._roi_align_backward(gradient.to(dtype).contiguous(), rois.to(dtype), *size)
    return spread.to(gradient.dtype)


def roi_align_max(features: Tensor, rois: Tensor, grid: RoIGrid) -> tuple[Tensor, Tensor, Tensor]:
    """Return the greatest sample of each bin and where it was taken.

    Args:
        features: ``(N, C, H, W)``; half precision is computed in float32.
        rois: ``(K, 5)``, see the module.
        grid: The bins.

    Returns:
        The maxima and the samples' y and x, each ``(K, C, grid.height, grid.width)`` in the type of ``features``. Of
        equal samples the first row's first counts. A bin without a sample, or with none above the lowest value (-10000
        on a CPU, float32's lowest elsewhere, as in mmcv), has the lowest value, and -1 for y and x.

    Example:
        >>> features = torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> [found.item() for found in roi_align_max(features, torch.tensor([[0.0, 0, 0, 4, 4]]), RoIGrid(1, 1))]
        [15.0, 3.0, 3.0]
    """
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    pixels, boxes = features.permute(0, 2, 3, 1).to(dtype), rois.to(dtype)
    shape = (len(rois), features.shape[1], grid.height, grid.width)
    lowest = -10000.0 if features.device.type == "cpu" else FLOAT32_LOWEST
    maxima, rows, columns = pixels.new_full(shape, lowest), pixels.new_full(shape, -1.0), pixels.new_full(shape, -1.0)
    for chosen, y, x in _samples(boxes, grid, channels=shape[1]):
        values = _interpolate(pixels, boxes[chosen, 0].long(), y.flatten(1), x.flatten(1))
        # (K, bins, samples, bins, samples, C) to (K, C, bins, bins, samples * samples)
        values = values.reshape(*y.shape, *x.shape[1:], -1).permute(0, 5, 1, 3, 2, 4).flatten(4)
        best, index = values.where(values > lowest, lowest).max(-1)
        row = y[:, None, :, None].expand(*best.shape, -1).gather(-1, (index // x.shape[2])[..., None])[..., 0]
        column = x[:, None, None].expand(*best.shape, -1).gather(-1, (index % x.shape[2])[..., None])[..., 0]
        maxima[chosen] = best
        rows[chosen], columns[chosen] = (place.where(best > lowest, -1.0) for place in (row, column))
    return maxima.to(features.dtype), rows.to(features.dtype), columns.to(features.dtype)


def roi_align_max_backward(
    gradient: Tensor, rois: Tensor, rows: Tensor, columns: Tensor, shape: tuple[int, int, int, int]
) -> Tensor:
    """Return the gradient of the features of :func:`roi_align_max`.

    Args:
        gradient: That of the maxima, ``(K, C, height, width)``.
        rois: ``(K, 5)``.
        rows: The samples' y; -1 adds nothing.
        columns: The samples' x.
        shape: Of the features, ``(N, C, H, W)``.

    Returns:
        ``shape``, in the type of ``gradient``.

    Example:
        >>> one = torch.ones(1, 1, 1, 1)
        >>> roi_align_max_backward(one, torch.zeros(1, 5), 0.0 * one, 0.25 * one, (1, 1, 1, 2))
        tensor([[[[0.7500, 0.2500]]]])
    """
    dtype = torch.float64 if gradient.dtype == torch.float64 else torch.float32
    images, channels = rois[:, 0].long(), torch.arange(shape[1], device=rois.device)
    plane = ((images[:, None] * shape[1] + channels) * shape[2] * shape[3])[:, :, None, None]
    total = gradient.new_zeros(shape[0] * shape[1] * shape[2] * shape[3], dtype=dtype)
    at_once = max(1, values_at_once(rois) // max(1, gradient[:1].numel()))
    for some in torch.arange(len(rois), device=rois.device).split(at_once):  # type: ignore[no-untyped-call]
        given, y, x, first = (part[some] for part in (gradient, rows, columns, plane))
        given = given.to(dtype) * (y != -1)
        for row, row_share in _neighbours(y.to(dtype), shape[2]):
            of_row, start = given * row_share, first + row * shape[3]
            for column, column_share in _neighbours(x.to(dtype), shape[3]):
                total.index_add_(0, (start + column).flatten(), (of_row * column_share).flatten())
    return total.reshape(shape).to(gradient.dtype)


def _samples(rois: Tensor, grid: RoIGrid, channels: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield regions with as many samples each: indices ``(k,)``, y ``(k, bins, samples)`` and x likewise."""
    bins = (grid.height, grid.width)
    shift = 0.5 if grid.aligned else 0.0
    start, end = rois[:, [2, 1]] * grid.spatial_scale - shift, rois[:, [4, 3]] * grid.spatial_scale - shift
    extent = end - start if grid.aligned else (end - start).clamp(min=1.0)
    if grid.sampling_ratio > 0:
        samples = torch.full_like(extent, grid.sampling_ratio, dtype=torch.int64)
    else:
        samples = (extent / extent.new_tensor(bins)).ceil().long()
    kinds, kind = samples.unique(dim=0, return_inverse=True)  # type: ignore[no-untyped-call]
    for number, (high, wide) in enumerate(kinds.tolist()):
        if high <= 0 or wide <= 0:
            continue
        at_once = max(1, values_at_once(rois) // (bins[0] * high * bins[1] * wide * max(1, channels)))
        for chosen in (kind == number).nonzero()[:, 0].split(at_once):
            y, x = (
                _along(start[chosen, axis], extent[chosen, axis], bins[axis], count)
                for axis, count in enumerate((high, wide))
            )
            yield chosen, y, x


def _along(start: Tensor, extent: Tensor, bins: int, samples: int) -> Tensor:
    """Return the coordinates of the samples of each bin ``(k, bins, samples)``."""
    size = (extent / bins)[:, None, None]
    bin_ = torch.arange(bins, device=start.device)[:, None]
    middle = torch.arange(samples, device=start.device) + 0.5
    return start[:, None, None] + bin_ * size + middle * size / samples


def _neighbours(coordinate: Tensor, length: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the pixels below and above a coordinate, each with its share, which is 0 outside the map."""
    inside = (coordinate >= -1) & (coordinate <= length)
    place = coordinate.where(inside, 0.0).clamp(0, length - 1)
    low = place.floor().long()
    share = place - low
    return (low, (1 - share) * inside), ((low + 1).clamp(max=length - 1), share * inside)


def _interpolate(pixels: Tensor, images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Return samples ``(k, Y, X, C)`` of ``pixels`` ``(N, H, W, C)`` at all pairs of y ``(k, Y)`` and x ``(k, X)``."""
    total: Tensor | float = 0.0
    for row, row_share in _neighbours(y, pixels.shape[1]):
        for column, column_share in _neighbours(x, pixels.shape[2]):
            corner = pixels[images[:, None, None], row[:, :, None], column[:, None]]
            total = total + corner * (row_share[:, :, None] * column_share[:, None])[..., None]
    return torch.as_tensor(total)


def _backward_by_products(gradient: Tensor, rois: Tensor, shape: tuple[int, int, int, int], grid: RoIGrid) -> Tensor:
    """Do what torchvision's kernel does, in an order that never changes, which CUDA's atomic additions do not have.

    An average is a product: ``rows @ features @ columns.T``, with the shares of the pixels in each bin. Half precision
    is computed in float32.
    """
    dtype = torch.float64 if torch.float64 in (gradient.dtype, rois.dtype) else torch.float32
    given, boxes = gradient.to(dtype), rois.to(dtype)
    total = given.new_zeros(shape)
    with full_precision(given):
        for chosen, y, x in _samples(boxes, grid, channels=shape[1]):
            rows, columns = _shares(y, shape[2]), _shares(x, shape[3])
            for image in range(shape[0]):
                here = (boxes[chosen, 0] == image).nonzero()[:, 0]
                wide = given[chosen[here]] @ columns[here, None]
                total[image] += torch.einsum("kph,kcpw->chw", rows[here], wide)
    return total.to(gradient.dtype)


def _shares(coordinate: Tensor, length: int) -> Tensor:
    """Return each pixel's mean share in the samples of each bin, ``(k, bins, length)``."""
    inside = (coordinate >= -1) & (coordinate <= length)
    distance = coordinate.clamp(0, length - 1)[..., None] - torch.arange(length, device=coordinate.device)
    return ((1 - distance.abs()).clamp(min=0) * inside[..., None]).mean(2)
