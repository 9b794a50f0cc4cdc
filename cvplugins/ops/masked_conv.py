"""Convolution at chosen pixels only: patches to columns before the matrix product, columns to pixels after it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["columns_to_pixels", "patches_at"]


def patches_at(
    image: Tensor, rows: Tensor, columns: Tensor, kernel_size: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Return the patches under a kernel of stride 1 at chosen outputs, as columns of a matrix.

    Args:
        image: Shape ``(1, C, H, W)``.
        rows: int64 ``(M,)``: row of each output.
        columns: int64 ``(M,)``: column of each output.
        kernel_size: Height and width of the kernel.
        padding: Rows and columns of zeros on each side.

    Returns:
        Shape ``(C * K_h * K_w, M)``, dtype of ``image``; multiplied by a convolution's weight from the left it gives
        the convolution at the outputs.

    Example:
        >>> image = torch.arange(9.0).view(1, 1, 3, 3)
        >>> patches_at(image, torch.tensor([0]), torch.tensor([1]), (2, 2), (1, 1)).view(2, 2)
        tensor([[0., 0.],
                [0., 1.]])
    """
    (height, width), (top, left) = kernel_size, padding
    # Below and right of the map at least as far as the kernel reaches from the last pixel.
    padded = F.pad(image[0], (left, max(left, width - 1 - left), top, max(top, height - 1 - top)))
    row = rows + torch.arange(height, device=rows.device)[:, None, None]
    column = columns + torch.arange(width, device=columns.device)[:, None]
    return padded[:, row, column].flatten(0, 2)


def columns_to_pixels(matrix: Tensor, rows: Tensor, columns: Tensor, output: Tensor) -> None:
    """Write columns of values to the pixels that they belong to; other pixels keep their values.

    Args:
        matrix: Shape ``(C, M)``.
        rows: int64 ``(M,)``: row of each column's pixel.
        columns: int64 ``(M,)``: column of each column's pixel.
        output: Shape ``(1, C, H, W)``; is written to.

    Example:
        >>> output = torch.zeros(1, 1, 2, 2)
        >>> columns_to_pixels(torch.tensor([[5.0]]), torch.tensor([0]), torch.tensor([1]), output)
        >>> output[0, 0]
        tensor([[0., 5.],
                [0., 0.]])
    """
    output[0][:, rows, columns] = matrix
