"""What the losses that compare embeddings with each other do first."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .reduction import full_precision

__all__ = ["check_aligned", "cosine_similarities", "label_pairs", "root", "squared_distances", "unit_vectors"]


def check_aligned(embeddings: Tensor, target: Tensor) -> None:
    """Raise ``ValueError`` unless both are ``(N, D, *)``."""
    if embeddings.ndim < 2 or embeddings.shape != target.shape:
        raise ValueError(
            f"target {tuple(target.shape)} does not fit embeddings {tuple(embeddings.shape)}: expected (N, D) of both"
        )


def cosine_similarities(rows: Tensor, columns: Tensor) -> Tensor:
    """Return the cosine of each of ``(N, D)`` with each of ``(M, D)``, shape ``(N, M)``.

    >>> cosine_similarities(torch.tensor([[3.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    tensor([[1., 0.]])
    """
    return _products(unit_vectors(rows), unit_vectors(columns))


def label_pairs(embeddings: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return which pairs of ``embeddings`` ``(N, D)`` have the same label in ``target`` ``(N,)`` and which do not.

    Returns:
        Two masks ``(N, N)``: positive pairs without the diagonal, and negative ones. An ignored label is in neither.

    Raises:
        ValueError: ``target`` does not hold one integer for each embedding.

    Example:
        >>> label_pairs(torch.zeros(3, 2), torch.tensor([4, 4, -100]), ignore_index=-100)[0].int()
        tensor([[0, 1, 0],
                [1, 0, 0],
                [0, 0, 0]], dtype=torch.int32)
    """
    if embeddings.ndim != 2 or target.shape != embeddings.shape[:1]:
        raise ValueError(
            f"target {tuple(target.shape)} does not fit embeddings {tuple(embeddings.shape)}: "
            "expected labels (N,) for embeddings (N, D)"
        )
    if target.is_floating_point():
        raise ValueError(f"target holds {target.dtype}; labels have to be integers")
    target = target.long()  # an ignore_index of -100 would be 156 among bytes
    valid = target != ignore_index
    same, both = target.unsqueeze(0) == target.unsqueeze(1), valid.unsqueeze(0) & valid.unsqueeze(1)
    # Not fill_diagonal_, for which torch.compile would compile anew for each size of a batch.
    other = ~torch.eye(len(target), dtype=torch.bool, device=target.device)
    return same & both & other, ~same & both


def root(squared: Tensor) -> Tensor:
    """Return the square root of numbers of at least 0, with a gradient of 0 where it is vertical.

    >>> root(torch.tensor([0.0, 4.0]))
    tensor([0., 2.])
    """
    positive = squared > 0
    return squared.where(positive, squared.new_ones(())).sqrt() * positive


def squared_distances(embeddings: Tensor) -> Tensor:
    """Return the squared Euclidean distance of each of ``(N, D)`` to each, shape ``(N, N)``.

    >>> squared_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    tensor([[ 0., 25.],
            [25.,  0.]])
    """
    # Distances do not change with the origin; near their mean the products of vectors round least.
    centred = embeddings - embeddings.detach().mean(0)
    squares = centred.square().sum(1)
    # The factor belongs inside: torch.compile drops a gradient of a Function that gets one tensor twice (torch 2.12).
    return (squares.unsqueeze(0) + squares.unsqueeze(1) + _products(centred, -2 * centred)).clamp(min=0)


def unit_vectors(vectors: Tensor) -> Tensor:
    """Divide by the length along dimension 1; a zero vector stays 0, with a gradient as if its length were 1.

    >>> unit_vectors(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    length: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / length.where(length > 0, length.new_ones(()))


class _Products(Function):
    """``rows @ columns.t()`` that autocast leaves alone, also where the backward pass runs inside of it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(rows, columns)
        with full_precision(rows):
            return rows @ columns.t()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = ctx.saved_tensors
        with full_precision(grad):
            return grad @ columns, grad.t() @ rows


def _products(rows: Tensor, columns: Tensor) -> Tensor:
    products: Tensor = _Products.apply(rows, columns)  # type: ignore[no-untyped-call]
    return products
