"""Cosine loss: embeddings that should point the same way."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .contract import Loss
from .pairs import check_aligned, unit_vectors
from .reduction import at_least_float32, check_reduction, weight_and_reduce

__all__ = ["CosineSimilarityLoss", "cosine_similarity_loss"]


def cosine_similarity_loss(
    embeddings: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """One minus the cosine of the angle between each embedding and its target, in [0, 2].

    A zero vector has no direction: it costs 1, and its gradient is that of a vector of length 1. For embeddings with
    labels, which also push others apart, see :func:`contrastive_loss` and :func:`supcon_loss`.

    Args:
        embeddings: Vectors ``(N, D)`` or feature maps ``(N, D, *)``, compared along ``D``.
        target: The same shape.
        weight: Factor per vector, ``(N, *)``.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides by; the number of vectors if None.

    Returns:
        A scalar, or ``(N, *)`` for ``"none"``; 0 for empty input. At least float32.

    Raises:
        ValueError: Shapes or ``reduction`` do not fit.

    Example:
        >>> import torch
        >>> cosine_similarity_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
        tensor(0.4000)
    """
    check_aligned(embeddings, target)
    vectors, others = unit_vectors(at_least_float32(embeddings)), unit_vectors(at_least_float32(target))
    return weight_and_reduce(1 - (vectors * others).sum(1), weight, reduction, divisor)


class CosineSimilarityLoss(Loss):
    """Module form of :func:`cosine_similarity_loss`.

    Args:
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = check_reduction(reduction)

    def forward(self, embeddings: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor`` and ``reduction``."""
        return cosine_similarity_loss(embeddings, target, **{"reduction": self.reduction, **call})
