"""Cross-entropy over exclusive classes, and of one binary classifier per class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from .chunks import per_sample
from .contract import Loss
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

__all__ = ["BCELoss", "CrossEntropyLoss", "binary_cross_entropy", "cross_entropy"]


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    class_weight: Sequence[float] | Tensor | None = None,
    label_smoothing: float = 0.0,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Cross-entropy over exclusive classes.

    Args:
        logits: Raw scores, shape ``(N, C, *)``.
        target: Indices in ``[0, C)`` or ``ignore_index``, shape ``(N, *)``; or probabilities, ``(N, C, *)``.
        class_weight: Factor of each class, ``C`` numbers.
        label_smoothing: Share of the target that is spread evenly over the classes, in [0, 1].
        weight: Factor per element, shape ``(N, *)``.
        ignore_index: Index that adds no loss and no gradient.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides by; the number of elements that are not ignored if None. (torch divides
            by the sum of their class weights.)

    Returns:
        A scalar, or ``(N, *)`` for ``"none"``; 0 when nothing is valid. At least float32.

    Raises:
        ValueError: Shapes, indices, ``class_weight`` or ``reduction`` do not fit.

    Example:
        >>> import torch
        >>> cross_entropy(torch.zeros(1, 2), torch.tensor([1]))  # ln 2
        tensor(0.6931)
    """
    logits = at_least_float32(logits)
    if target.shape == logits.shape:
        target = target.to(logits.dtype)
    else:
        target = check_indices(logits, target, ignore_index)
        if divisor is None and reduction == "mean":
            divisor = count_elements(target, valid_elements(target, ignore_index))
    factors = None
    if class_weight is not None:
        factors = class_weights("class_weight", class_weight, logits).reshape(-1).expand(logits.shape[1])
    if divisor is None and reduction == "mean":
        divisor = math.prod(logits.shape[:1] + logits.shape[2:])
    # torch sums without keeping the loss of each element; only a weight needs that.
    inside = "sum" if weight is None and check_reduction(reduction) != "none" else "none"
    loss = F.cross_entropy(
        logits, target, factors, ignore_index=ignore_index, reduction=inside, label_smoothing=label_smoothing
    )
    return weight_and_reduce(loss, weight, reduction, divisor)


def binary_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    pos_weight: float | Sequence[float] | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Cross-entropy of one binary classifier per logit; several classes may be true at once.

    Args:
        logits: Raw scores, shape ``(N, C, *)``, or any shape if ``target`` has the same.
        target: Indices ``(N, *)``, where ``C`` stands for background (no class is positive); or probabilities
            in the shape of ``logits``, where ``ignore_index`` marks elements to ignore.
        pos_weight: Factor of the positive part, one number or one per class.
        weight: Factor per sample ``(N, *)`` or per logit.
        ignore_index: What adds no loss and no gradient.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides by; the number of logits that are not ignored if None.

    Returns:
        A scalar, or the shape of ``logits`` for ``"none"``; 0 when nothing is valid. At least float32.

    Raises:
        ValueError: Shapes, indices, ``pos_weight`` or ``reduction`` do not fit.

    Example:
        >>> import torch
        >>> binary_cross_entropy(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))  # ln 2
        tensor(0.6931)
    """
    logits = at_least_float32(logits)
    target, valid = one_per_class(logits, target, ignore_index)
    of_class = None if pos_weight is None else class_weights("pos_weight", pos_weight, logits)
    if check_reduction(reduction) == "none" or (weight is not None and weight.requires_grad):
        loss = F.binary_cross_entropy_with_logits(logits, target, pos_weight=of_class, reduction="none")
        return weight_and_reduce(loss, weight, reduction, divisor, valid)
    # torch sums without keeping the loss of each element.
    factor = factor_per_element(logits, valid, weight)
    if of_class is not None:
        of_class = of_class.reshape(1, -1, 1)
    total = F.binary_cross_entropy_with_logits(
        per_sample(logits), per_sample(target), factor, pos_weight=of_class, reduction="sum"
    )
    if divisor is None and reduction == "mean":
        divisor = count_elements(logits, valid)
    return reduce_loss(total, reduction, divisor)


class CrossEntropyLoss(Loss):
    """Module form of :func:`cross_entropy`.

    Args:
        class_weight: Factor of each class.
        label_smoothing: Share of the target that is spread evenly over the classes, in [0, 1].
        ignore_index: Index that adds no loss.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
    """

    target_kind = "labels"

    def __init__(
        self,
        class_weight: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be in [0, 1], not {label_smoothing}")
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        self.reduction = check_reduction(reduction)

    def forward(self, logits: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor``, ``reduction`` and ``ignore_index``."""
        options = {"ignore_index": self.ignore_index, "reduction": self.reduction, **call}
        return cross_entropy(
            logits, target, class_weight=self.class_weight, label_smoothing=self.label_smoothing, **options
        )


class BCELoss(Loss):
    """Module form of :func:`binary_cross_entropy`.

    mmdet's dense heads learn from ``use_sigmoid=True`` in the config that there is no background channel: say it
    there, although this loss knows no other way.

    Args:
        pos_weight: Factor of the positive part, one number or one per class.
        ignore_index: What adds no loss.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
    """

    target_kind = "labels"

    use_sigmoid = True

    def __init__(
        self,
        pos_weight: float | Sequence[float] | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.pos_weight = pos_weight
        self.ignore_index = ignore_index
        self.reduction = check_reduction(reduction)

    def forward(self, logits: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor``, ``reduction`` and ``ignore_index``."""
        options = {"ignore_index": self.ignore_index, "reduction": self.reduction, **call}
        return binary_cross_entropy(logits, target, pos_weight=self.pos_weight, **options)
