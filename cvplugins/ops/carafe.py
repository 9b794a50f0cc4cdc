"""CARAFE: upsampling with a kernel for each pixel, which the network predicts."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from cvplugins.precision import at_least_float32, full_precision

__all__ = ["carafe", "carafe_backward"]

# Patches are ``kernel_size ** 2`` times as large as the features, so they are made for some rows at a time: 64 MiB.
_PATCH_ELEMENTS = 2**24


def carafe(features: Tensor, masks: Tensor, *, kernel_size: int, group_size: int, scale_factor: int) -> Tensor:
    """Upsample: each output pixel is a weighted sum of the input pixels around it.

    With ``r = (kernel_size - 1) / 2`` and ``g`` the group of channel ``c``, output ``[n, c, y, x]`` is the sum over
    ``(i, j)`` of ``features[n, c, y // scale_factor + i - r, x // scale_factor + j - r]
    * masks[n, (g * kernel_size + i) * kernel_size + j, y, x]``; features outside of the map are 0. Half precision is
    computed in float32. Reference: Wang et al., CARAFE: Content-Aware ReAssembly of FEatures, ICCV 2019,
    arXiv:1905.02188.

    Args:
        features: Floating point, shape ``(N, C, H, W)``.
        masks: Weights, shape ``(N, group_size * kernel_size ** 2, H * scale_factor, W * scale_factor)``.
        kernel_size: Height and width of the kernels, odd.
        group_size: Number of groups of channels that share a kernel; divides ``C``.
        scale_factor: Output pixels for each input pixel, vertically and horizontally.

    Returns:
        Shape ``(N, C, H * scale_factor, W * scale_factor)``, dtype of ``features``.

    Raises:
        ValueError: ``masks`` do not fit ``features`` and the options.

    Example:
        >>> features, keep = torch.tensor([[[[1.0, 2.0]]]]), torch.ones(1, 1, 2, 4)
        >>> carafe(features, keep, kernel_size=1, group_size=1, scale_factor=2)[0, 0]
        tensor([[1., 1., 2., 2.],
                [1., 1., 2., 2.]])
    """
    batch, _, height, width = features.shape
    expected = (batch, group_size * kernel_size**2, height * scale_factor, width * scale_factor)
    if masks.shape != expected:
        raise ValueError(f"masks {tuple(masks.shape)} do not fit features {tuple(features.shape)}: expected {expected}")
    padded = _padded(features, kernel_size)
    output = features.new_empty(*features.shape[:2], *masks.shape[2:])
    with full_precision(features):
        for rows in _strips(features, kernel_size):
            large = slice(rows.start * scale_factor, rows.stop * scale_factor)
            patches = _patches(padded, rows, kernel_size, group_size)
            weights = _to_cells(masks[:, :, large], group_size, scale_factor)
            _from_cells(weights @ patches, output[:, :, large], group_size, scale_factor)
    return output


def carafe_backward(
    grad_output: Tensor, features: Tensor, masks: Tensor, *, kernel_size: int, group_size: int, scale_factor: int
) -> tuple[Tensor, Tensor]:
    """Return the gradients of :func:`carafe` for its features and its masks, in their dtypes.

    Args:
        grad_output: Shape ``(N, C, H * scale_factor, W * scale_factor)``.
        features: As in the forward call.
        masks: As in the forward call.
        kernel_size: As in the forward call.
        group_size: As in the forward call.
        scale_factor: As in the forward call.
    """
    padded = _padded(features, kernel_size)
    grad_padded, grad_masks = torch.zeros_like(padded), torch.zeros_like(masks)
    with full_precision(features):
        for rows in _strips(features, kernel_size):
            large = slice(rows.start * scale_factor, rows.stop * scale_factor)
            patches = _patches(padded, rows, kernel_size, group_size)
            weights = _to_cells(masks[:, :, large], group_size, scale_factor)
            grad_cells = _to_cells(grad_output[:, :, large], group_size, scale_factor)
            _from_cells(grad_cells @ patches.transpose(1, 2), grad_masks[:, :, large], group_size, scale_factor)
            _add_patches(weights.transpose(1, 2) @ grad_cells, grad_padded, rows, kernel_size)
    radius, (height, width) = kernel_size // 2, features.shape[2:]
    grad_features = grad_padded[:, radius : radius + height, radius : radius + width]
    return grad_features.permute(0, 3, 1, 2).to(features.dtype), grad_masks


def _padded(features: Tensor, kernel_size: int) -> Tensor:
    """Return the features, at least float32, as ``(N, H + 2r, W + 2r, C)``: the channels of a pixel lie together."""
    radius = kernel_size // 2
    return F.pad(at_least_float32(features).permute(0, 2, 3, 1), (0, 0, radius, radius, radius, radius))


def _strips(features: Tensor, kernel_size: int) -> Iterator[slice]:
    """Yield the rows of the small map in strips whose patches fit into memory."""
    batch, channels, height, width = features.shape
    if features.numel() == 0:
        return
    step = max(1, _PATCH_ELEMENTS // max(1, batch * channels * width * kernel_size**2))
    for start in range(0, height, step):
        yield slice(start, min(start + step, height))


def _patches(padded: Tensor, rows: slice, kernel_size: int, groups: int) -> Tensor:
    """Return what lies under each kernel of some rows: ``(N * rows * W * G, kernel_size ** 2, C / G)``."""
    strip = padded[:, rows.start : rows.stop + kernel_size - 1]
    windows = strip.unfold(1, kernel_size, 1).unfold(2, kernel_size, 1)  # (N, rows, W, C, i, j)
    windows = torch.unflatten(windows, 3, (groups, windows.shape[3] // groups))
    return windows.permute(0, 1, 2, 3, 5, 6, 4).flatten(4, 5).flatten(0, 3)


def _add_patches(patches: Tensor, padded: Tensor, rows: slice, kernel_size: int) -> None:
    """Add patches to where :func:`_patches` takes them from."""
    batch, _, width, channels = padded.shape
    height, width = rows.stop - rows.start, width - kernel_size + 1
    groups = channels // patches.shape[2]
    windows = patches.view(batch, height, width, groups, kernel_size, kernel_size, patches.shape[2])
    for i in range(kernel_size):
        for j in range(kernel_size):
            window = padded[:, rows.start + i : rows.stop + i, j : j + width]
            window += windows[:, :, :, :, i, j].reshape(batch, height, width, channels)


def _to_cells(large: Tensor, groups: int, scale: int) -> Tensor:
    """Sort ``(N, G * D, rows * scale, W * scale)`` by small pixel and group: ``(N * rows * W * G, scale ** 2, D)``."""
    batch, channels, height, width = large.shape
    cells = at_least_float32(large).reshape(
        batch, groups, channels // groups, height // scale, scale, width // scale, scale
    )
    return cells.permute(0, 3, 5, 1, 4, 6, 2).flatten(4, 5).flatten(0, 3)


def _from_cells(cells: Tensor, large: Tensor, groups: int, scale: int) -> None:
    """Write what :func:`_to_cells` returns to where it came from."""
    batch, channels, height, width = large.shape
    cells = cells.view(batch, height // scale, width // scale, groups, scale, scale, channels // groups)
    large.copy_(cells.permute(0, 3, 6, 1, 4, 2, 5).reshape(large.shape))
