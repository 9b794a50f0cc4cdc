"""Triplet loss: of each anchor, a positive should be nearer than a negative by a margin."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .contract import Loss
from .pairs import cosine_similarities, label_pairs, root, squared_distances, unit_vectors
from .reduction import at_least_float32, check_reduction, weight_and_reduce

__all__ = ["TripletLoss", "triplet_loss"]

MININGS = ("batch_hard", "semi_hard")
DISTANCES = ("euclidean", "cosine")


def triplet_loss(
    embeddings: Tensor,
    target: Tensor,
    *,
    margin: float | str = 0.3,
    mining: str = "batch_hard",
    distance: str = "euclidean",
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Distance to a positive minus distance to a negative plus a margin, at least 0, of triplets mined in the batch.

    The batch is that of this process; nothing is gathered over ranks. Memory is O(N^2).

    Args:
        embeddings: Vectors, shape ``(N, D)``, compared as they are: normalise them before if they should be.
        target: Labels, any integers, shape ``(N,)``.
        margin: How much nearer the positive has to be; or ``"soft"`` for ``softplus`` in place of the hinge.
        mining: ``"batch_hard"``: the farthest positive and the nearest negative of each anchor (Hermans et al. 2017,
            arXiv:1703.07737). ``"semi_hard"``: for each positive the nearest negative that is farther than it, or the
            farthest negative if none is (Schroff et al. 2015, arXiv:1503.03832, as in TensorFlow Addons); the loss of
            an anchor is the mean over its positives.
        distance: ``"euclidean"``, or ``"cosine"`` for one minus the cosine.
        weight: Factor per anchor, ``(N,)``.
        ignore_index: A sample with this label is neither anchor nor positive nor negative.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides by; the number of anchors that have a positive and a negative if None.

    Returns:
        A scalar, or a loss per anchor ``(N,)`` for ``"none"``, 0 without a positive or a negative. At least float32.

    Raises:
        ValueError: An option or a shape does not fit.

    Example:
        >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [5.0]])
        >>> triplet_loss(embeddings, torch.tensor([0, 0, 1, 1]), margin=1.5, reduction="none")
        tensor([0.0000, 0.5000, 1.5000, 0.0000])
    """
    _check_options(margin, mining, distance)
    positive, negative = label_pairs(embeddings, target, ignore_index)
    embeddings = at_least_float32(embeddings)
    mine = _batch_hard if mining == "batch_hard" else _semi_hard
    loss = mine(embeddings, positive, negative, margin, distance)
    return weight_and_reduce(loss, weight, reduction, divisor, positive.any(1) & negative.any(1))


class TripletLoss(Loss):
    """Module form of :func:`triplet_loss`.

    Args:
        margin: A number, or ``"soft"``.
        mining: ``"batch_hard"`` or ``"semi_hard"``.
        distance: ``"euclidean"`` or ``"cosine"``.
        ignore_index: Label of samples that are left out.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
    """

    target_kind = "labels"

    def __init__(
        self,
        margin: float | str = 0.3,
        mining: str = "batch_hard",
        distance: str = "euclidean",
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        _check_options(margin, mining, distance)
        self.margin = margin
        self.mining = mining
        self.distance = distance
        self.ignore_index = ignore_index
        self.reduction = check_reduction(reduction)

    def forward(self, embeddings: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor``, ``reduction`` and ``ignore_index``."""
        options = {"ignore_index": self.ignore_index, "reduction": self.reduction, **call}
        return triplet_loss(
            embeddings, target, margin=self.margin, mining=self.mining, distance=self.distance, **options
        )


def _distances(embeddings: Tensor, distance: str) -> Tensor:
    """Return the distance of each to each, ``(N, N)``."""
    if distance == "cosine":
        return 1 - cosine_similarities(embeddings, embeddings)
    return root(squared_distances(embeddings))


def _distance_of_pairs(embeddings: Tensor, others: Tensor, distance: str) -> Tensor:
    """Return the distance of each to the one in the same row, ``(N,)``."""
    if distance == "cosine":
        return 1 - (unit_vectors(embeddings) * unit_vectors(others)).sum(1)
    return root((embeddings - others).square().sum(1))


def _batch_hard(embeddings: Tensor, positive: Tensor, negative: Tensor, margin: float | str, distance: str) -> Tensor:
    if not len(embeddings):
        return embeddings.sum(1)  # no extreme value of nothing
    with torch.no_grad():  # gradients flow through the two distances that are chosen alone
        distances = _distances(embeddings, distance)
        farthest = distances.masked_fill(~positive, -math.inf).argmax(1)
        nearest = distances.masked_fill_(~negative, math.inf).argmin(1)
    to_positive = _distance_of_pairs(embeddings, embeddings[farthest], distance)
    return _above_margin(to_positive - _distance_of_pairs(embeddings, embeddings[nearest], distance), margin)


def _semi_hard(embeddings: Tensor, positive: Tensor, negative: Tensor, margin: float | str, distance: str) -> Tensor:
    distances = _distances(embeddings, distance)
    # In a sorted row of negatives, a search for each distance finds the next that is farther: no (N, N, N) mask.
    ordered = distances.masked_fill(~negative, math.inf).sort(1).values
    next_farther = torch.searchsorted(ordered.detach(), distances.detach(), right=True)
    farthest = (negative.sum(1, keepdim=True) - 1).clamp(min=0)
    chosen = ordered.gather(1, next_farther.minimum(farthest))
    return (_above_margin(distances - chosen, margin) * positive).sum(1) / positive.sum(1).clamp(min=1)


def _above_margin(difference: Tensor, margin: float | str) -> Tensor:
    return F.softplus(difference) if isinstance(margin, str) else (difference + margin).clamp(min=0)


def _check_options(margin: float | str, mining: str, distance: str) -> None:
    if isinstance(margin, str) and margin != "soft":
        raise ValueError(f"unknown margin {margin!r}; use a number or 'soft'")
    if mining not in MININGS:
        raise ValueError(f"unknown mining {mining!r}; use one of {', '.join(map(repr, MININGS))}")
    if distance not in DISTANCES:
        raise ValueError(f"unknown distance {distance!r}; use one of {', '.join(map(repr, DISTANCES))}")
