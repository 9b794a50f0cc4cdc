"""Focal loss: cross-entropy that counts easy examples less.

Reference: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, arXiv:1708.02002.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .chunks import per_sample
from .contract import Loss
from .focal_sums import IndexFocalSum, SoftFocalSum, SoftmaxFocal
from .reduction import (
    at_least_float32,
    check_reduction,
    class_weights,
    count_elements,
    factor_per_element,
    reduce_loss,
    weight_and_reduce,
)
from .targets import check_indices, one_per_class, valid_elements

__all__ = ["FocalLoss", "sigmoid_focal_loss", "softmax_focal_loss"]


def sigmoid_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    alpha: float | Sequence[float] | None = 0.25,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Focal loss of one binary classifier per class: ``alpha_t * (1 - p_t) ** gamma * bce``.

    Args:
        logits: Raw scores, shape ``(N, C, *)``.
        target: Class indices, shape ``(N, *)``, where ``C`` stands for background (no class is positive); or
            probabilities in [0, 1], shape ``(N, C, *)``. For a probability ``t`` the factors are mixed:
            ``p_t = p * t + (1 - p) * (1 - t)``, and ``alpha_t`` likewise, as in mmdet.
        gamma: Focus, at least 0; 0 gives weighted binary cross-entropy.
        alpha: Share of positives, one number in [0, 1] or one per class; negatives get ``1 - alpha``.
            None leaves both at 1.
        weight: Factor per sample ``(N, *)`` or per logit ``(N, C, *)``.
        ignore_index: Index that adds no loss and no gradient.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides by; the number of logits that are not ignored if None.

    Returns:
        A scalar, or ``(N, C, *)`` for ``"none"``; 0 when nothing is valid. At least float32.

    Raises:
        ValueError: Shapes, ``alpha`` or ``reduction`` do not fit.

    Example:
        >>> logits = torch.zeros(1, 2)
        >>> sigmoid_focal_loss(logits, torch.tensor([0]), alpha=None, reduction="none")  # 0.5 ** 2 * ln 2
        tensor([[0.1733, 0.1733]])
    """
    _check_share(alpha)
    logits = at_least_float32(logits)
    if reduction == "none" or target.requires_grad or (weight is not None and weight.requires_grad):
        target, valid = one_per_class(logits, target, ignore_index)
        loss = _sigmoid_focal(logits, target, gamma, alpha)
        return weight_and_reduce(loss, weight, reduction, divisor, valid)
    check_reduction(reduction)
    dense = target.shape == logits.shape
    if not dense:
        target = check_indices(logits, target, ignore_index, with_background=True)
    valid = valid_elements(target, ignore_index)
    factor = factor_per_element(logits, valid, weight)
    if divisor is None and reduction == "mean":
        divisor = count_elements(logits, valid)
    share = None if alpha is None else class_weights("alpha", alpha, logits).reshape(1, -1, 1)
    values = per_sample(logits)
    if dense:
        total = SoftFocalSum.apply(  # type: ignore[no-untyped-call]
            values, target.reshape(values.shape), factor, share, gamma
        )
    else:
        total = IndexFocalSum.apply(  # type: ignore[no-untyped-call]
            values, target.reshape(len(values), 1, values.shape[2]), factor, share, gamma
        )
    return reduce_loss(total, reduction, divisor)


def softmax_focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    alpha: float | Sequence[float] | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Focal loss of one classifier over exclusive classes: ``alpha_t * (1 - p_t) ** gamma * ce``.

    Args:
        logits: Raw scores, shape ``(N, C, *)``; a background class is one of the ``C``.
        target: Indices in ``[0, C)`` or ``ignore_index``, shape ``(N, *)``.
        gamma: Focus, at least 0; 0 gives (weighted) cross-entropy.
        alpha: Factor of each class, ``C`` numbers; or one number for all of them; None leaves it at 1.
        weight: Factor per element, shape ``(N, *)``.
        ignore_index: Index that adds no loss and no gradient.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides by; the number of elements that are not ignored if None.

    Returns:
        A scalar, or ``(N, *)`` for ``"none"``; 0 when nothing is valid. At least float32.

    Raises:
        ValueError: Shapes, ``alpha`` or ``reduction`` do not fit.

    Example:
        >>> softmax_focal_loss(torch.zeros(1, 2), torch.tensor([1]))  # 0.5 ** 2 * ln 2
        tensor(0.1733)
    """
    target = check_indices(logits, target, ignore_index)
    logits = at_least_float32(logits)
    valid = valid_elements(target, ignore_index)
    index = (target if valid is None else target.masked_fill(~valid, 0)).unsqueeze(1)
    loss: Tensor = SoftmaxFocal.apply(logits, index, gamma)  # type: ignore[no-untyped-call]
    if alpha is not None:
        loss = loss * class_weights("alpha", alpha, logits).expand_as(logits).gather(1, index)
    return weight_and_reduce(loss.squeeze(1), weight, reduction, divisor, valid)


class FocalLoss(Loss):
    """Module form of :func:`sigmoid_focal_loss` and :func:`softmax_focal_loss`.

    Args:
        use_sigmoid: One binary classifier per class instead of a softmax over exclusive classes. False if
            absent, because mmdet's dense heads read this key from the config and take its absence as False;
            a default of True would disagree with the head about the number of channels.
        gamma: Focus, at least 0.
        alpha: Balance; see the functions. With ``use_sigmoid`` 0.25 is the paper's choice.
        ignore_index: Index that adds no loss.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.

    Example:
        >>> FocalLoss(use_sigmoid=True, alpha=0.25)(torch.zeros(1, 1), torch.tensor([0]))  # 0.25 * 0.1733
        tensor(0.0433)
    """

    target_kind = "labels"

    def __init__(
        self,
        use_sigmoid: bool = False,
        gamma: float = 2.0,
        alpha: float | Sequence[float] | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if gamma < 0:
            raise ValueError(f"gamma must be at least 0, not {gamma}")
        if use_sigmoid:
            _check_share(alpha)
        self.use_sigmoid = use_sigmoid
        self.gamma = gamma
        self.alpha = alpha
        self.ignore_index = ignore_index
        self.reduction = check_reduction(reduction)

    def forward(self, logits: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor``, ``reduction`` and ``ignore_index``."""
        function = sigmoid_focal_loss if self.use_sigmoid else softmax_focal_loss
        options = {"ignore_index": self.ignore_index, "reduction": self.reduction, **call}
        return function(logits, target, gamma=self.gamma, alpha=self.alpha, **options)


def _check_share(alpha: float | Sequence[float] | None) -> None:
    """Raise ``ValueError`` for one number outside [0, 1]; Detectron2 and torchvision mean None by a negative one."""
    if isinstance(alpha, (int, float)) and not 0 <= alpha <= 1:
        raise ValueError(f"alpha, the share of positives, must be in [0, 1], not {alpha}; None leaves it out")


def _sigmoid_focal(logits: Tensor, target: Tensor, gamma: float, alpha: float | Sequence[float] | None) -> Tensor:
    """Return the loss of each element; ``target`` is a probability in the shape of ``logits``."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    # 1 - p_t from two sigmoids: the difference to 1 would lose the small values that matter most.
    miss = torch.sigmoid(logits) * (1 - target) + torch.sigmoid(-logits) * target
    # The clamp keeps the gradient finite at miss = 0 for gamma < 1, where x ** gamma is vertical.
    loss = cross_entropy * miss.clamp(min=torch.finfo(miss.dtype).tiny) ** gamma
    if alpha is None:
        return loss
    share = class_weights("alpha", alpha, logits)
    return loss * (share * target + (1 - share) * (1 - target))
