"""RoIPool: each region of a feature map as a grid of bins of whole pixels, each bin its maximum.

Reference: Girshick, Fast R-CNN, ICCV 2015, arXiv:1504.08083.

Regions are ``(image, x1, y1, x2, y2)`` in the image's pixels, and the pixel ``x2`` belongs to them. They are scaled
without rounding; a bin has the pixels that it touches, so that neighbours may share one. torchvision's RoIPool rounds
the scaled region first, which gives other bins.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cvplugins.losses.chunks import values_at_once

__all__ = ["roi_pool", "roi_pool_backward"]

FLOAT32_LOWEST = torch.finfo(torch.float32).min


def roi_pool(
    features: Tensor, rois: Tensor, *, output_size: tuple[int, int], spatial_scale: float
) -> tuple[Tensor, Tensor]:
    """Return the maximum of each bin and where it is.

    Args:
        features: ``(N, C, H, W)``; half precision is computed in float32.
        rois: ``(K, 5)``, see the module.
        output_size: Rows and columns of bins.
        spatial_scale: Size of a pixel of the image in pixels of the feature map.

    Returns:
        The maxima ``(K, C, *output_size)`` in the type of ``features``, and int32 indices of their pixels in ``H * W``;
        of equal pixels the first. A bin outside the map is 0 with index -1. So is every bin of a region that ends
        before it begins, where mmcv's CUDA operator has index 0 and sends the gradient to the first pixel.

    Example:
        >>> features = torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> roi_pool(features, torch.tensor([[0.0, 0.0, 0.0, 3.0, 3.0]]), output_size=(2, 2), spatial_scale=1.0)[0]
        tensor([[[[ 5.,  7.],
                  [13., 15.]]]])
    """
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    pixels, boxes = features.permute(0, 2, 3, 1).to(dtype), rois.to(dtype)
    top, bottom = _edges(boxes[:, 2], boxes[:, 4], spatial_scale, output_size[0], pixels.shape[1])
    left, right = _edges(boxes[:, 1], boxes[:, 3], spatial_scale, output_size[1], pixels.shape[2])
    shape = (len(rois), features.shape[1], *output_size)
    maxima, indices = pixels.new_zeros(shape), torch.full(shape, -1, dtype=torch.int32, device=rois.device)
    # Regions whose largest bins have the same size are gathered together.
    sizes = torch.stack([(bottom - top).amax(1), (right - left).amax(1)], 1)
    kinds, kind = sizes.unique(dim=0, return_inverse=True)  # type: ignore[no-untyped-call]
    for number, (high, wide) in enumerate(kinds.tolist()):
        if high == 0 or wide == 0:
            continue
        at_once = max(1, values_at_once(pixels) // (max(1, shape[1]) * shape[2] * high * shape[3] * wide))
        for chosen in (kind == number).nonzero()[:, 0].split(at_once):
            rows, columns = _Span(top[chosen], bottom[chosen], high), _Span(left[chosen], right[chosen], wide)
            maxima[chosen], indices[chosen] = _bin_maxima(pixels, boxes[chosen, 0].long(), rows, columns)
    return maxima.to(features.dtype), indices


def roi_pool_backward(gradient: Tensor, rois: Tensor, indices: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """Return the gradient of the features of :func:`roi_pool`.

    Args:
        gradient: That of the maxima, ``(K, C, height, width)``.
        rois: ``(K, 5)``.
        indices: Pixels of the maxima in ``H * W``; -1 adds nothing.
        shape: Of the features, ``(N, C, H, W)``.

    Returns:
        ``shape``, in the type of ``gradient``.

    Example:
        >>> roi_pool_backward(torch.ones(1, 1, 1, 1), torch.zeros(1, 5), torch.tensor([[[[1]]]]), (1, 1, 1, 2))
        tensor([[[[0., 1.]]]])
    """
    dtype = torch.float64 if gradient.dtype == torch.float64 else torch.float32
    size = shape[2] * shape[3]
    channel = rois[:, 0].long()[:, None] * shape[1] + torch.arange(shape[1], device=rois.device)
    place = channel[:, :, None, None] * size + indices.clamp(min=0)
    given = gradient.to(dtype) * (indices >= 0)
    total = given.new_zeros(shape[0] * shape[1] * size)
    return total.index_add_(0, place.flatten(), given.flatten()).reshape(shape).to(gradient.dtype)


def _edges(start: Tensor, end: Tensor, spatial_scale: float, bins: int, length: int) -> tuple[Tensor, Tensor]:
    """Return the first pixel of each bin and the one behind its last, ``(K, bins)`` each, within the map."""
    start, end = start * spatial_scale, (end + 1) * spatial_scale
    size = ((end - start) / bins)[:, None].double()
    # One rounding for product and sum, as CUDA's fused multiply-add does: the edge decides about a whole pixel.
    edges = torch.arange(bins + 1, device=start.device) * size + start[:, None].double()
    edges = edges.to(start.dtype)
    first, behind = edges[:, :-1].floor().clamp(0, length).long(), edges[:, 1:].ceil().clamp(0, length).long()
    return first, behind.where((end > start)[:, None], first)


class _Span:
    """Pixels of bins along one axis: their places ``(k, bins, most)``, and which of these the bin really has."""

    def __init__(self, first: Tensor, behind: Tensor, most: int) -> None:
        self.places = first[:, :, None] + torch.arange(most, device=first.device)
        self.inside = self.places < behind[:, :, None]
        self.places = self.places.where(self.inside, 0)


def _bin_maxima(pixels: Tensor, images: Tensor, rows: _Span, columns: _Span) -> tuple[Tensor, Tensor]:
    """Return the maxima of ``pixels`` ``(N, H, W, C)`` and their indices, both ``(k, C, bins, bins)``."""
    values = pixels[images[:, None, None], rows.places.flatten(1)[:, :, None], columns.places.flatten(1)[:, None]]
    values = values.reshape(*rows.places.shape, *columns.places.shape[1:], -1).permute(0, 5, 1, 3, 2, 4).flatten(4)
    inside = _pairs(rows.inside, columns.inside, torch.logical_and)
    # NaN and what is below float32 is no maximum.
    best, chosen = values.where(inside & (values > FLOAT32_LOWEST), FLOAT32_LOWEST).max(-1)
    index = _pairs(rows.places * pixels.shape[2], columns.places, torch.add).expand_as(values)
    index = index.gather(-1, chosen[..., None])[..., 0].where(best > FLOAT32_LOWEST, -1)
    return best.where(inside.any(-1), 0.0), index.int()


def _pairs(rows: Tensor, columns: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Combine ``(k, bins, high)`` and ``(k, bins, wide)`` to ``(k, 1, bins, bins, high * wide)``."""
    return combine(rows[:, None, :, None, :, None], columns[:, None, None, :, None, :]).flatten(4)
