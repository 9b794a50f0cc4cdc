"""Masks of point-wise spatial attention: weights by relative position become weights by absolute position.

Reference: Zhao et al., PSANet: Point-wise Spatial Attention Network for Scene Parsing, ECCV 2018.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["psa_collect", "psa_collect_backward", "psa_distribute", "psa_distribute_backward"]


def psa_collect(mask: Tensor, mask_size: tuple[int, int]) -> Tensor:
    """Return the weights with which each pixel collects from all pixels.

    Args:
        mask: Weights by relative position: entry ``(i, j)`` of the window of pixel ``(h, w)`` belongs to pixel
            ``(h + i - (H_mask - 1) // 2, w + j - (W_mask - 1) // 2)``. Shape ``(N, H_mask * W_mask, H, W)``.
        mask_size: Height and width of the window.

    Returns:
        Shape ``(N, H * W, H, W)``, dtype of ``mask``: ``[:, other, h, w]`` is the weight of the other pixel for pixel
        ``(h, w)``, 0 outside of its window.

    Example:
        >>> window = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1).expand(1, 3, 1, 4)
        >>> psa_collect(window, (1, 3)).view(4, 4)
        tensor([[2., 1., 0., 0.],
                [3., 2., 1., 0.],
                [0., 3., 2., 1.],
                [0., 0., 3., 2.]])
    """
    rows, columns = (_distances(size, size, -1) + (window - 1) // 2 for size, window in _axes(mask, mask_size))
    return _gather(torch.unflatten(mask, 1, mask_size), rows, columns)


def psa_collect_backward(grad_output: Tensor, mask_size: tuple[int, int]) -> Tensor:
    """Return the gradient of :func:`psa_collect` for its mask.

    Args:
        grad_output: Shape ``(N, H * W, H, W)``.
        mask_size: Height and width of the window.

    Returns:
        Shape ``(N, H_mask * W_mask, H, W)``.
    """
    rows, columns = (_distances(window, size, 1) - (window - 1) // 2 for size, window in _axes(grad_output, mask_size))
    return _gather(torch.unflatten(grad_output, 1, grad_output.shape[2:]), rows, columns)


def psa_distribute(mask: Tensor, mask_size: tuple[int, int]) -> Tensor:
    """Return the weights with which each pixel distributes to all pixels.

    Args:
        mask: As in :func:`psa_collect`.
        mask_size: Height and width of the window.

    Returns:
        Shape ``(N, H * W, H, W)``, dtype of ``mask``: ``[:, pixel, h, w]`` is the weight of pixel ``(h, w)`` in the
        window of the pixel, 0 outside of it.
    """
    return _swap(psa_collect(mask, mask_size))


def psa_distribute_backward(grad_output: Tensor, mask_size: tuple[int, int]) -> Tensor:
    """Return the gradient of :func:`psa_distribute` for its mask; shapes as in :func:`psa_collect_backward`."""
    return psa_collect_backward(_swap(grad_output), mask_size)


def _axes(tensor: Tensor, mask_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the size of the map and of the window, for rows and for columns."""
    return list(zip(tensor.shape[2:], mask_size, strict=True))


def _distances(entries: int, pixels: int, sign: int) -> Tensor:
    """Return ``entry + sign * pixel``, shape ``(entries, pixels)``."""
    return torch.arange(entries)[:, None] + sign * torch.arange(pixels)


def _gather(source: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return ``source[n, rows[i, h], columns[j, w], h, w]`` as ``(N, I * J, H, W)``, 0 where an index is outside."""
    rows, columns = rows.to(source.device), columns.to(source.device)
    (last_row, last_column), (height, width) = (size - 1 for size in source.shape[1:3]), source.shape[3:]
    found = source[
        :,
        rows.clamp(0, last_row)[:, None, :, None],
        columns.clamp(0, last_column)[None, :, None, :],
        torch.arange(height, device=source.device)[:, None],
        torch.arange(width, device=source.device),
    ]
    no_row, no_column = (rows < 0) | (rows > last_row), (columns < 0) | (columns > last_column)
    return found.masked_fill_(no_row[:, None, :, None] | no_column[None, :, None, :], 0).flatten(1, 2)


def _swap(weights: Tensor) -> Tensor:
    """Return weights by pixel and other pixel, ``(N, H * W, H, W)``, by other pixel and pixel."""
    return torch.unflatten(weights.flatten(2).transpose(1, 2), 2, weights.shape[2:])
