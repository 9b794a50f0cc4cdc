"""Lovász loss: a convex surrogate of one minus the Jaccard index, from sorted errors.

Reference: Berman et al., The Lovász-Softmax loss, CVPR 2018, arXiv:1705.08790.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .chunks import chunks, per_sample
from .contract import Loss
from .reduction import at_least_float32, check_over, check_reduction, class_weights, weight_and_reduce
from .targets import check_indices, valid_elements

__all__ = ["LovaszLoss", "lovasz_hinge_loss", "lovasz_softmax_loss"]


def lovasz_softmax_loss(
    logits: Tensor,
    target: Tensor,
    *,
    over: str = "image",
    class_weight: Sequence[float] | None = None,
    ignore_index: int = 255,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Lovász-softmax: of each class that is there, the Lovász extension of its Jaccard loss.

    Args:
        logits: Raw scores, shape ``(N, C, *)``.
        target: Indices in ``[0, C)`` or ``ignore_index``, shape ``(N, *)``.
        over: ``"image"``: a region a class and image. ``"batch"``: a region a class over all images.
        class_weight: Factor of each class.
        ignore_index: Pixels with this target count for nothing.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``, over regions.
        divisor: What ``"mean"`` divides by; the number of regions that are there if None.

    Returns:
        A scalar, or ``(N, C)`` or ``(1, C)`` for ``"none"``; 0 when nothing is there. At least float32.

    Raises:
        ValueError: An option, a shape or an index does not fit.

    Example:
        >>> lovasz_softmax_loss(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]]))
        tensor(0.5000)
    """
    target = check_indices(logits, target, ignore_index)
    probability = per_sample(at_least_float32(logits).softmax(1))
    target = target.reshape(len(target), 1, probability.shape[2])
    classes = torch.arange(logits.shape[1], device=logits.device).view(1, -1, 1)
    is_class = target == classes
    errors = torch.where(is_class, 1 - probability, probability)
    valid = valid_elements(target, ignore_index)
    if valid is not None:
        errors = errors.masked_fill(~valid, 0)  # an ignored pixel is sorted last and changes nothing before
        is_class = is_class & valid  # it is of no class, also where the index to ignore is one
    errors, is_class = _over(errors, over), _over(is_class, over)
    loss, present = _lovasz(errors, is_class), is_class.any(2)
    if class_weight is not None:
        loss = loss * class_weights("class_weight", class_weight, loss)
    return weight_and_reduce(loss, None, reduction, divisor, present)


def lovasz_hinge_loss(
    logits: Tensor,
    target: Tensor,
    *,
    over: str = "image",
    ignore_index: int = 255,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Lovász hinge: the same for one binary region, from hinge errors of the logits.

    Args:
        logits: Raw scores, shape ``(N, *)``.
        target: 0, 1 or ``ignore_index``, shape ``(N, *)``.
        over: ``"image"``: a region an image. ``"batch"``: one region over all images.
        ignore_index: Pixels with this target count for nothing.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``, over regions.
        divisor: What ``"mean"`` divides by; the number of regions if None.

    Returns:
        A scalar, or ``(N,)`` or ``(1,)`` for ``"none"``. At least float32.

    Raises:
        ValueError: An option or a shape does not fit.

    Example:
        >>> lovasz_hinge_loss(torch.tensor([[5.0, -5.0]]), torch.tensor([[1, 0]]))
        tensor(0.)
    """
    if logits.shape != target.shape:
        raise ValueError(f"target {tuple(target.shape)} does not fit logits {tuple(logits.shape)}")
    logits = at_least_float32(logits).reshape(len(logits), 1, math.prod(logits.shape[1:]))
    target = target.reshape(logits.shape)
    valid = target != ignore_index
    is_true = (target == 1) & valid
    errors = (1 - logits * (2 * is_true.to(logits.dtype) - 1)).clamp(min=0).where(valid, logits.new_zeros(()))
    loss = _lovasz(_over(errors, over), _over(is_true, over))
    return weight_and_reduce(loss.squeeze(1), None, reduction, divisor)


class LovaszLoss(Loss):
    """Module form of :func:`lovasz_softmax_loss`, or with ``binary`` of :func:`lovasz_hinge_loss`.

    Args:
        binary: One region from logits without a class dimension.
        over: ``"image"`` or ``"batch"``.
        class_weight: Factor of each class; none for ``binary``.
        ignore_index: Pixels with this target count for nothing.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
    """

    target_kind = "labels"

    def __init__(
        self,
        binary: bool = False,
        over: str = "image",
        class_weight: Sequence[float] | None = None,
        ignore_index: int = 255,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if binary and class_weight is not None:
            raise ValueError("a binary LovaszLoss has no classes; leave class_weight out")
        self.binary = self.use_sigmoid = binary  # the second name is what heads of OpenMMLab ask for
        self.over = check_over(over)
        self.class_weight = class_weight
        self.ignore_index = ignore_index
        self.reduction = check_reduction(reduction)

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor | None = None, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``divisor``, ``reduction`` and ``ignore_index``."""
        if weight is not None:
            raise ValueError(f"weight {tuple(weight.shape)} does not fit: pixels have no weight in the Lovász loss")
        options = {"over": self.over, "ignore_index": self.ignore_index, "reduction": self.reduction, **call}
        if self.binary:
            return lovasz_hinge_loss(logits, target, **options)
        return lovasz_softmax_loss(logits, target, class_weight=self.class_weight, **options)


def _lovasz(errors: Tensor, is_class: Tensor) -> Tensor:
    """Return the Lovász extension of the Jaccard loss of each row; both ``(N, C, P)``."""
    rows: Tensor = _Extension.apply(errors.flatten(0, 1), is_class.flatten(0, 1))  # type: ignore[no-untyped-call]
    return rows.view(errors.shape[:2])


class _Extension(Function):
    """The same for rows ``(R, P)``. It is linear in the errors once they are sorted: only the slopes are kept."""

    @staticmethod
    def forward(ctx: Any, errors: Tensor, is_class: Tensor) -> Tensor:
        loss, slopes = errors.new_empty(len(errors)), torch.empty_like(errors)
        rank = torch.arange(1, errors.shape[1] + 1, device=errors.device, dtype=errors.dtype)
        for part, _, _ in chunks(errors.unsqueeze(2)):  # whole rows
            ordered, order = errors[part].sort(dim=1, descending=True)
            positive = is_class[part].gather(1, order).to(errors.dtype)
            missing = positive.sum(1, keepdim=True) - positive.cumsum(1)
            jaccard = 1 - missing / (missing + rank)
            steps = torch.diff(jaccard, dim=1, prepend=jaccard.new_zeros(len(jaccard), 1))
            loss[part] = (ordered * steps).sum(1)
            slopes[part] = torch.zeros_like(steps).scatter_(1, order, steps)
        ctx.save_for_backward(slopes)
        return loss

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return slopes * outer.unsqueeze(1), None


def _over(values: Tensor, over: str) -> Tensor:
    """Return ``(N, C, P)`` as it is, or as one image ``(1, C, N * P)``."""
    return values if check_over(over) == "image" else values.transpose(0, 1).flatten(1).unsqueeze(0)
