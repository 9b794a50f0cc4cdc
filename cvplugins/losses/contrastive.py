"""Contrastive losses: embeddings of one label draw together, those of different labels apart.

Each compares every sample of the batch with every other: memory is O(N^2). The batch is that of this process; nothing
is gathered over ranks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .contract import Loss
from .pairs import check_aligned, cosine_similarities, label_pairs, root, squared_distances
from .reduction import at_least_float32, check_reduction, weight_and_reduce

__all__ = ["ContrastiveLoss", "InfoNCELoss", "SupConLoss", "contrastive_loss", "info_nce_loss", "supcon_loss"]


def contrastive_loss(
    embeddings: Tensor,
    target: Tensor,
    *,
    margin: float = 1.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Squared distance ``d ** 2`` of pairs with the same label, ``max(0, margin - d) ** 2`` of the others.

    Over all pairs of the batch. Reference: Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping,
    CVPR 2006, whose loss has a factor of 1/2.

    Args:
        embeddings: Vectors, shape ``(N, D)``, compared as they are: normalise them before if they should be.
        target: Labels, any integers, shape ``(N,)``.
        margin: Distance from which on two samples of different labels cost nothing.
        weight: Factor per anchor, ``(N,)``.
        ignore_index: A sample with this label is in no pair.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``, over anchors: the loss of one is the mean over its pairs.
        divisor: What ``"mean"`` divides by; the number of anchors in a pair if None, which gives the mean over pairs.

    Returns:
        A scalar, or a loss per anchor ``(N,)`` for ``"none"``; 0 without pairs. At least float32.

    Raises:
        ValueError: A shape or ``reduction`` does not fit.

    Example:
        >>> contrastive_loss(torch.tensor([[0.0], [0.5], [0.7]]), torch.tensor([0, 0, 1]), reduction="none")
        tensor([0.1700, 0.4450, 0.3650])
    """
    positive, negative = label_pairs(embeddings, target, ignore_index)
    squared = squared_distances(at_least_float32(embeddings))
    loss = squared * positive + (margin - root(squared)).clamp(min=0).square() * negative
    partners = (positive | negative).sum(1)
    return weight_and_reduce(loss.sum(1) / partners.clamp(min=1), weight, reduction, divisor, partners > 0)


def supcon_loss(
    embeddings: Tensor,
    target: Tensor,
    *,
    temperature: float = 0.1,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Supervised contrastive loss: cross-entropy of finding an anchor's positives among all other samples.

    Of anchor ``i``: the mean over its positives ``p`` of ``-log(exp(s_ip / t) / sum_a exp(s_ia / t))``, with cosines
    ``s`` and all others ``a``. Reference: Khosla et al., Supervised Contrastive Learning, NeurIPS 2020,
    arXiv:2004.11362, L_out without the factor of its code (temperature by base temperature).

    Two views of each image are samples with the same label; with a label an image, it is NT-Xent (SimCLR).

    Args:
        embeddings: Vectors, shape ``(N, D)``; their length does not matter.
        target: Labels, any integers, shape ``(N,)``.
        temperature: ``t``, above 0; the lower, the more the nearest samples count.
        weight: Factor per anchor, ``(N,)``.
        ignore_index: A sample with this label is neither anchor nor positive nor negative.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides by; the number of anchors that have a positive if None.

    Returns:
        A scalar, or a loss per anchor ``(N,)`` for ``"none"``, 0 without a positive. At least float32.

    Raises:
        ValueError: An option or a shape does not fit.

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> supcon_loss(embeddings, torch.tensor([0, 0, 1, 1]), temperature=1.0)  # log(e + 2) - 1
        tensor(0.5514)
    """
    _check_temperature(temperature)
    positive, negative = label_pairs(embeddings, target, ignore_index)
    embeddings = at_least_float32(embeddings)
    scores = cosine_similarities(embeddings, embeddings) / temperature
    # The lowest finite number, not -inf: a row without others then makes no NaN on the way, not even a masked one.
    others = scores.masked_fill(~(positive | negative), torch.finfo(scores.dtype).min).logsumexp(1)
    count = positive.sum(1)
    loss = others - (scores * positive).sum(1) / count.clamp(min=1)
    return weight_and_reduce(loss, weight, reduction, divisor, count > 0)


def info_nce_loss(
    queries: Tensor,
    target: Tensor,
    *,
    temperature: float = 0.1,
    symmetric: bool = False,
    weight: Tensor | None = None,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Cross-entropy of finding each query's key among the keys of the batch.

    Of query ``i``: ``-log(exp(s_ii / t) / sum_j exp(s_ij / t))``, with cosines ``s``. References: van den Oord et al.
    2018, arXiv:1807.03748; ``symmetric`` as in CLIP, Radford et al. 2021, arXiv:2103.00020. For NT-Xent (SimCLR), where
    the other queries are negatives too, see :func:`supcon_loss`.

    Args:
        queries: Vectors, shape ``(N, D)``; their length does not matter.
        target: Keys, the same shape; key ``i`` belongs to query ``i``.
        temperature: ``t``, above 0; the lower, the more the nearest keys count.
        symmetric: Whether keys look for their queries as well; the loss of a pair is the mean of both.
        weight: Factor per pair, ``(N,)``.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides by; the number of pairs if None.

    Returns:
        A scalar, or a loss per pair ``(N,)`` for ``"none"``; 0 for one pair, or none. At least float32.

    Raises:
        ValueError: An option or a shape does not fit.

    Example:
        >>> info_nce_loss(torch.eye(3), torch.eye(3), temperature=1.0)  # log(e + 2) - 1
        tensor(0.5514)
    """
    _check_temperature(temperature)
    check_aligned(queries, target)
    if queries.ndim != 2:
        raise ValueError(f"queries {tuple(queries.shape)} does not fit: expected (N, D); flatten or pool the others")
    scores = cosine_similarities(at_least_float32(queries), at_least_float32(target)) / temperature
    among = (scores.logsumexp(1) + scores.logsumexp(0)) / 2 if symmetric else scores.logsumexp(1)
    return weight_and_reduce(among - scores.diagonal(), weight, reduction, divisor)


class ContrastiveLoss(Loss):
    """Module form of :func:`contrastive_loss`.

    Args:
        margin: Distance from which on two samples of different labels cost nothing.
        ignore_index: Label of samples that are left out.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
    """

    target_kind = "labels"

    def __init__(self, margin: float = 1.0, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__()
        self.margin = margin
        self.ignore_index = ignore_index
        self.reduction = check_reduction(reduction)

    def forward(self, embeddings: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor``, ``reduction`` and ``ignore_index``."""
        options = {"ignore_index": self.ignore_index, "reduction": self.reduction, **call}
        return contrastive_loss(embeddings, target, margin=self.margin, **options)


class SupConLoss(Loss):
    """Module form of :func:`supcon_loss`.

    Args:
        temperature: Above 0; the lower, the more the nearest samples count.
        ignore_index: Label of samples that are left out.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
    """

    target_kind = "labels"

    def __init__(self, temperature: float = 0.1, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__()
        self.temperature = _check_temperature(temperature)
        self.ignore_index = ignore_index
        self.reduction = check_reduction(reduction)

    def forward(self, embeddings: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor``, ``reduction`` and ``ignore_index``."""
        options = {"ignore_index": self.ignore_index, "reduction": self.reduction, **call}
        return supcon_loss(embeddings, target, temperature=self.temperature, **options)


class InfoNCELoss(Loss):
    """Module form of :func:`info_nce_loss`.

    Args:
        temperature: Above 0; the lower, the more the nearest keys count.
        symmetric: Whether keys look for their queries as well.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
    """

    def __init__(self, temperature: float = 0.1, symmetric: bool = False, reduction: str = "mean") -> None:
        super().__init__()
        self.temperature = _check_temperature(temperature)
        self.symmetric = symmetric
        self.reduction = check_reduction(reduction)

    def forward(self, queries: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor`` and ``reduction``."""
        options = {"reduction": self.reduction, **call}
        return info_nce_loss(queries, target, temperature=self.temperature, symmetric=self.symmetric, **options)


def _check_temperature(temperature: float) -> float:
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    return temperature
