"""The focal loss of each score, and its derivative, in mmcv's two forms.

Reference: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, arXiv:1708.02002. Use
:func:`cvplugins.losses.sigmoid_focal_loss` in new code: these functions have mmcv's options, and no reduction.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from cvplugins.losses.chunks import chunks, per_sample
from cvplugins.losses.focal_sums import negative, negative_slope
from cvplugins.losses.reduction import at_least_float32

__all__ = [
    "sigmoid_focal_loss",
    "sigmoid_focal_loss_backward",
    "softmax_focal_loss",
    "softmax_focal_loss_backward",
]

FLOAT32_TINY = torch.finfo(torch.float32).tiny


def sigmoid_focal_loss(
    logits: Tensor, target: Tensor, *, gamma: float, alpha: float, weight: Tensor | None = None
) -> Tensor:
    """Return ``alpha_t * (1 - p_t) ** gamma * -log(p_t)`` of one binary classifier per class.

    It follows its formula for all logits. mmcv's CUDA operator computes ``log(max(1 - p, 1.2e-38))``, which in float32
    is -87 for the logit 17 of a negative, where the formula gives -17; the derivatives are the same.

    Args:
        logits: ``(N, C)``.
        target: Class of each row, ``(N,)``; anything else, such as ``C``, is background, where no class is positive.
        gamma: Focus.
        alpha: Share of the positives; negatives get ``1 - alpha``.
        weight: Factor of each class ``(C,)``, taken by the row's target, for all scores of the row; 1 for background.

    Returns:
        ``(N, C)`` in the type of ``logits``, computed in float32 at least.

    Example:
        >>> sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([0]), gamma=2.0, alpha=0.25)  # 0.25 * ln 2 * shares
        tensor([[0.0433, 0.1300]])
    """
    loss = torch.empty_like(logits)
    for row in _rows(logits, target):
        found = negative(row.logits, gamma).mul_(1 - alpha)
        at_target = alpha * negative(-row.at_target, gamma)
        loss[row.place] = _finish(found, at_target, row, weight)
    return loss


def sigmoid_focal_loss_backward(
    logits: Tensor, target: Tensor, *, gamma: float, alpha: float, weight: Tensor | None = None
) -> Tensor:
    """Return the derivative of each score of :func:`sigmoid_focal_loss` by its logit; the same arguments.

    Example:
        >>> sigmoid_focal_loss_backward(torch.zeros(1, 2), torch.tensor([0]), gamma=0.0, alpha=0.5)
        tensor([[-0.2500,  0.2500]])
    """
    slope = torch.empty_like(logits)
    for row in _rows(logits, target):
        found = negative_slope(row.logits, gamma).mul_(1 - alpha)
        at_target = -alpha * negative_slope(-row.at_target, gamma)
        slope[row.place] = _finish(found, at_target, row, weight)
    return slope


def softmax_focal_loss(
    probability: Tensor, target: Tensor, *, gamma: float, alpha: float, weight: Tensor | None = None
) -> Tensor:
    """Return ``-alpha * (1 - p) ** gamma * log(p)`` with the probability of each row's target.

    Args:
        probability: Softmax ``(N, C)``.
        target: Class of each row, ``(N,)``; a negative one adds no loss.
        gamma: Focus.
        alpha: Factor of all.
        weight: Factor of each class ``(C,)``.

    Returns:
        ``(N,)`` in the type of ``probability``, computed in float32 at least.

    Example:
        >>> softmax_focal_loss(torch.tensor([[0.5, 0.5]]), torch.tensor([1]), gamma=2.0, alpha=1.0)  # 0.5 ** 2 * ln 2
        tensor([0.1733])
    """
    p, factor = _of_target(probability, target, weight)
    loss = -alpha * (1 - p) ** gamma * p.clamp(min=FLOAT32_TINY).log() * factor
    return loss.to(probability.dtype)


def softmax_focal_loss_backward(
    probability: Tensor, target: Tensor, *, gamma: float, alpha: float, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return what :func:`softmax_focal_loss` gives for its logits; the same arguments.

    Returns:
        The derivative by the target's logit without the factor ``1 - p``, ``(N,)``, and that by all logits ``(N, C)``.

    Example:
        >>> found = softmax_focal_loss_backward(torch.tensor([[0.5, 0.5]]), torch.tensor([1]), gamma=0.0, alpha=1.0)
        >>> found[1]
        tensor([[ 0.5000, -0.5000]])
    """
    p, factor = _of_target(probability, target, weight)
    miss = 1 - p
    # miss ** (gamma - 1) * log(p) tends to 0 with miss; computed, it can be infinity times 0.
    focus = torch.where(miss > 0, miss ** (gamma - 1) * p * p.clamp(min=FLOAT32_TINY).log(), 0.0)
    slope = alpha * factor * (gamma * focus - miss**gamma)
    classes = torch.arange(probability.shape[1], device=target.device)
    gradient = slope[:, None] * ((target[:, None] == classes).to(p.dtype) - probability)
    return slope.to(probability.dtype), gradient.to(probability.dtype)


class _Rows(NamedTuple):
    """Some rows: where they are, their logits, and the target with its logit ``(n, 1)``; class 0 for background."""

    place: slice
    logits: Tensor
    at_target: Tensor
    target: Tensor
    is_class: Tensor


def _rows(logits: Tensor, target: Tensor) -> Iterator[_Rows]:
    """Yield as many rows at once as stay in the cache."""
    if logits.shape[1] == 0:
        return
    for place, _, _ in chunks(per_sample(logits)):
        some, target_of_some = at_least_float32(logits[place]), target[place, None]
        is_class = (target_of_some >= 0) & (target_of_some < logits.shape[1])
        index = target_of_some.where(is_class, 0)
        yield _Rows(place, some, some.gather(1, index), index, is_class)


def _finish(found: Tensor, at_target: Tensor, row: _Rows, weight: Tensor | None) -> Tensor:
    """Put in what the targets give, and weigh the rows."""
    found.scatter_(1, row.target, at_target.where(row.is_class, found[:, :1]))
    return found if weight is None else found * weight.to(found.dtype)[row.target].where(row.is_class, 1.0)


def _of_target(probability: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the probability of each row's target, and the row's factor, which is 0 for a negative target."""
    valid = target >= 0
    index = target.where(valid, 0)
    p = at_least_float32(probability).gather(1, index[:, None])[:, 0]
    factor = valid.to(p.dtype)
    return p, factor if weight is None else factor * weight.to(p.dtype)[index]
