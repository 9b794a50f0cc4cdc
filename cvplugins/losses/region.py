"""Region overlap losses: Dice, Jaccard, Tversky and their relatives, from three sums per region.

All of them depend on the logits only through ``intersection``, ``predicted`` and ``true``, so that one function
with one hand-written gradient serves them all. It keeps the probabilities, which the backward pass turns into the
gradient in their place: one tensor of the size of the logits is all that it needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from .chunks import chunks
from .contract import Loss
from .once import once_differentiable
from .reduction import (
    at_least_float32,
    check_over,
    check_reduction,
    class_weights,
    factor_per_element,
    full_precision,
    weight_and_reduce,
)
from .targets import check_indices, is_compiling, valid_elements

__all__ = [
    "DiceLoss",
    "FocalTverskyLoss",
    "GeneralizedDiceLoss",
    "IoULoss",
    "RegionSums",
    "TverskyLoss",
    "generalized_dice_loss",
    "region_sums",
    "tversky_loss",
]

LOG2_E = math.log2(math.e)
MODES = ("multiclass", "multilabel", "binary")


class RegionSums(NamedTuple):
    """Soft counts of each region, all ``(N, C)``: probability on the region, probability, size of the region."""

    intersection: Tensor
    predicted: Tensor
    true: Tensor


def region_sums(
    logits: Tensor,
    target: Tensor,
    *,
    mode: str = "multiclass",
    weight: Tensor | None = None,
    ignore_index: int = 255,
) -> RegionSums:
    """Sum probabilities over regions.

    Args:
        logits: Raw scores. ``(N, C, *)``, but ``(N, *)`` for ``"binary"``.
        target: Class indices ``(N, *)`` for ``"multiclass"``, else probabilities in the shape of ``logits``.
        mode: ``"multiclass"``: a softmax over exclusive classes. ``"multilabel"``: a sigmoid per class.
            ``"binary"``: a sigmoid per element, one region per sample, ``C`` is 1.
        weight: Factor per pixel, ``(N, *)``.
        ignore_index: Pixels with this target count for nothing. In a dense target it marks elements.

    Returns:
        Sums over the pixels of each sample and class. At least float32.

    Raises:
        ValueError: Shapes, indices or ``mode`` do not fit.

    Example:
        >>> region_sums(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 0, 1]])).intersection
        tensor([[1.5000, 0.5000]])
    """
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}; use one of {', '.join(map(repr, MODES))}")
    if mode == "multiclass":
        target = check_indices(logits, target, ignore_index)
    elif logits.shape != target.shape or logits.ndim < 1 + (mode == "multilabel"):
        raise ValueError(f"target {tuple(target.shape)} does not fit logits {tuple(logits.shape)} in mode {mode!r}")
    if mode == "binary":
        logits, target = logits.unsqueeze(1), target.unsqueeze(1)
    samples, classes = logits.shape[:2]
    pixels = math.prod(logits.shape[2:])
    flat = at_least_float32(logits).reshape(samples, classes, pixels)
    if weight is not None and (weight.numel() != samples * pixels or weight.shape[:1] != (samples,)):
        raise ValueError(f"weight {tuple(weight.shape)} does not fit the {samples} x {pixels} pixels")
    weight = None if weight is None else weight.reshape(samples, pixels)
    if mode == "multiclass":
        target = target.reshape(samples, pixels)
        valid = valid_elements(target, ignore_index)
        factor = factor_per_element(flat, valid, weight)
        index = (target if valid is None else target.masked_fill(~valid, 0)).unsqueeze(1)
        if factor is not None and factor.requires_grad:
            return _sums_of(flat.softmax(1), torch.zeros_like(flat).scatter_(1, index, 1.0), factor)
        sums = _SoftmaxSums.apply(flat, index, factor)  # type: ignore[no-untyped-call]
    else:
        target = target.reshape(samples, classes, pixels)
        factor = factor_per_element(flat, valid_elements(target, ignore_index), weight)
        if target.requires_grad or (factor is not None and factor.requires_grad):
            return _sums_of(flat.sigmoid(), target.to(flat.dtype), factor)
        sums = _SigmoidSums.apply(flat, target, factor)  # type: ignore[no-untyped-call]
    return RegionSums(*sums)


def _sums_of(probability: Tensor, target: Tensor, factor: Tensor | None) -> RegionSums:
    """Let torch derive the sums, for a target or weights that learn too; all ``(N, C, P)``."""
    counted = target if factor is None else target * factor
    predicted = probability if factor is None else probability * factor
    return RegionSums((probability * counted).sum(2), predicted.sum(2), counted.sum(2))


class _SoftmaxSums(Function):
    """Sums of a softmax; ``logits`` ``(N, C, P)``, ``index`` and ``factor`` of each pixel ``(N, 1, P)``."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, index: Tensor, factor: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(logits, index, factor)
        ctx.probability = _kept(logits)
        intersection, predicted, true = (logits.new_zeros(logits.shape[:2]) for _ in range(3))
        for piece in chunks(logits):
            samples, of_pixel = piece[0], index[piece]
            probability = _softmax(logits[piece], ctx.probability, piece)
            of_target = probability.gather(1, of_pixel)
            if factor is None:
                counted = torch.ones_like(of_target)
                predicted[samples].add_(probability.sum(2))
            else:
                counted = factor[piece]
                of_target = of_target * counted
                # A product with the factors sums without a weighted copy of the probabilities.
                with full_precision(logits):
                    predicted[samples].add_(torch.bmm(probability, counted.transpose(1, 2)).squeeze(2))
            intersection[samples].scatter_add_(1, of_pixel.squeeze(1), of_target.squeeze(1))
            true[samples].scatter_add_(1, of_pixel.squeeze(1), counted.squeeze(1))
        ctx.mark_non_differentiable(true)
        return intersection, predicted, true

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, for_intersection: Tensor, for_predicted: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        logits, index, factor = ctx.saved_tensors
        known, ctx.probability = ctx.probability, None  # it becomes the gradient; a second pass computes it anew
        gradient = torch.empty_like(logits) if known is None else known
        for piece in chunks(logits):
            samples, of_pixel = piece[0], index[piece]
            of_class = for_predicted[samples]
            probability = _softmax(logits[piece]) if known is None else known[piece]
            # The gradient of a probability is g = for_predicted, and for_intersection more for the target's class;
            # that of a logit is factor * p * (g - mean), with the mean of g over the classes.
            more = for_intersection[samples].gather(1, of_pixel.squeeze(1)).unsqueeze(1) * probability.gather(
                1, of_pixel
            )
            with full_precision(logits):
                mean = torch.bmm(of_class.unsqueeze(1), probability).add_(more)
            probability.mul_(of_class.unsqueeze(2) - mean)
            if is_compiling():  # a scatter would end the loop that the compiler makes of all this
                probability.add_(more * (of_pixel == torch.arange(logits.shape[1], device=logits.device).view(-1, 1)))
            else:
                probability.scatter_add_(1, of_pixel, more)
            if factor is not None:
                probability.mul_(factor[piece])
            if known is None:
                gradient[piece] = probability
        return gradient, None, None


class _SigmoidSums(Function):
    """Sums of a sigmoid; ``logits`` and ``target`` ``(N, C, P)``, ``factor`` broadcastable to them."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, factor: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(logits, target, factor)
        ctx.probability = _kept(logits)
        intersection, predicted, true = (logits.new_zeros(logits.shape[:2]) for _ in range(3))
        for piece in chunks(logits):
            regions = piece[:2]
            kept = None if ctx.probability is None else ctx.probability[piece]
            probability, positive = torch.sigmoid(logits[piece], out=kept), target[piece].to(logits.dtype)
            weighted = probability if factor is None else probability * factor[piece]
            predicted[regions].add_(weighted.sum(2))
            true[regions].add_((positive if factor is None else positive * factor[piece]).sum(2))
            with full_precision(logits):
                intersection[regions].add_(torch.einsum("ncp,ncp->nc", weighted, positive))
        ctx.mark_non_differentiable(true)
        return intersection, predicted, true

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, for_intersection: Tensor, for_predicted: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        logits, target, factor = ctx.saved_tensors
        known, ctx.probability = ctx.probability, None
        gradient = torch.empty_like(logits) if known is None else known
        for piece in chunks(logits):
            regions = piece[:2]
            probability = logits[piece].sigmoid() if known is None else known[piece]
            slope = target[piece].to(logits.dtype) * for_intersection[regions].unsqueeze(2)
            slope.add_(for_predicted[regions].unsqueeze(2))
            if factor is not None:
                slope.mul_(factor[piece])
            probability.addcmul_(probability, probability, value=-1).mul_(slope)
            if known is None:
                gradient[piece] = probability
        return gradient, None, None


def tversky_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    gamma: float = 1.0,
    smooth: float = 1.0,
    over: str = "image",
    mode: str = "multiclass",
    class_weight: Sequence[float] | None = None,
    weight: Tensor | None = None,
    ignore_index: int = 255,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """One minus the Tversky index of each region: ``TP / (TP + alpha * FP + beta * FN)``.

    ``alpha = beta = 0.5`` is Dice, ``1`` Jaccard (IoU). References: Salehi et al. 2017, arXiv:1706.05721; with
    ``gamma`` Abraham and Khan 2019, arXiv:1810.07842.

    Args:
        logits: See :func:`region_sums`.
        target: See :func:`region_sums`.
        alpha: Cost of false positives.
        beta: Cost of false negatives.
        gamma: The loss is raised to this power.
        smooth: Added above and below; a class that is neither there nor predicted then costs nothing.
        over: ``"image"``: a region a class and image. ``"batch"``: a region a class over all images.
        mode: ``"multiclass"``, ``"multilabel"`` or ``"binary"``.
        class_weight: Factor of each class.
        weight: Factor per pixel, ``(N, *)``.
        ignore_index: Pixels with this target count for nothing.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``, over regions.
        divisor: What ``"mean"`` divides by; the number of regions if None.

    Returns:
        A scalar, or a loss per region, ``(N, C)`` or ``(1, C)``, for ``"none"``. At least float32.

    Raises:
        ValueError: An option, a shape or an index does not fit.

    Example:
        >>> logits = torch.tensor([[[9.0, 9.0, -9.0, -9.0], [-9.0, -9.0, 9.0, 9.0]]])
        >>> tversky_loss(logits, torch.tensor([[0, 0, 1, 1]])).item() < 1e-6
        True
    """
    check_over(over)
    sums = _pooled(region_sums(logits, target, mode=mode, weight=weight, ignore_index=ignore_index), over)
    false_positive, false_negative = sums.predicted - sums.intersection, sums.true - sums.intersection
    below = sums.intersection + alpha * false_positive + beta * false_negative + smooth
    # Without smoothing, an absent region that nobody predicts is 0 / 0: nothing is wrong with it.
    loss = ((below - sums.intersection - smooth) / below.where(below > 0, below.new_ones(()))).clamp(min=0)
    if gamma != 1:
        # The clamp keeps the gradient finite at 0 for gamma < 1, where x ** gamma is vertical.
        loss = loss.clamp(min=torch.finfo(loss.dtype).eps) ** gamma * (loss > 0)
    if class_weight is not None:
        loss = loss * class_weights("class_weight", class_weight, loss)
    return weight_and_reduce(loss, None, reduction, divisor)


def generalized_dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    smooth: float = 1e-5,
    over: str = "image",
    mode: str = "multiclass",
    weight: Tensor | None = None,
    ignore_index: int = 255,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """One minus the Dice of all classes together, each weighted by one over its squared size.

    Reference: Sudre et al. 2017, arXiv:1707.03237. A class that is absent gets the largest weight of those that
    are there, as in MONAI.

    Args:
        logits: See :func:`region_sums`.
        target: See :func:`region_sums`.
        smooth: Added above and below.
        over: ``"image"``: a loss an image. ``"batch"``: one over all images.
        mode: ``"multiclass"``, ``"multilabel"`` or ``"binary"``.
        weight: Factor per pixel, ``(N, *)``.
        ignore_index: Pixels with this target count for nothing.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides by; the number of losses if None.

    Returns:
        A scalar, or ``(N,)`` or ``(1,)`` for ``"none"``. At least float32.

    Raises:
        ValueError: An option, a shape or an index does not fit.

    Example:
        >>> generalized_dice_loss(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]]))
        tensor(0.5000)
    """
    check_over(over)
    sums = _pooled(region_sums(logits, target, mode=mode, weight=weight, ignore_index=ignore_index), over)
    present = sums.true > 0
    inverse = torch.where(present, sums.true, sums.true.new_ones(())).square().reciprocal() * present
    factor = torch.where(present, inverse, inverse.amax(1, keepdim=True)) if inverse.numel() else inverse
    above = 2 * (factor * sums.intersection).sum(1) + smooth
    below = (factor * (sums.predicted + sums.true)).sum(1) + smooth
    # Without smoothing, what is neither there nor predicted is 0 / 0: nothing is wrong with it.
    loss = (below - above) / below.where(below > 0, below.new_ones(()))
    return weight_and_reduce(loss, None, reduction, divisor)


class _RegionLoss(Loss):
    """What the modules share: they store their options."""

    target_kind = "labels"

    alpha = beta = 0.5
    gamma = 1.0

    def __init__(
        self,
        smooth: float = 1.0,
        over: str = "image",
        mode: str = "multiclass",
        class_weight: Sequence[float] | None = None,
        ignore_index: int = 255,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"unknown mode {mode!r}; use one of {', '.join(map(repr, MODES))}")
        self.smooth = smooth
        self.over = check_over(over)
        self.mode = mode
        self.use_sigmoid = mode != "multiclass"  # what heads of OpenMMLab ask for
        self.class_weight = class_weight
        self.ignore_index = ignore_index
        self.reduction = check_reduction(reduction)

    def forward(self, logits: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor``, ``reduction`` and ``ignore_index``."""
        options = {"ignore_index": self.ignore_index, "reduction": self.reduction, **call}
        return tversky_loss(
            logits,
            target,
            alpha=self.alpha,
            beta=self.beta,
            gamma=self.gamma,
            smooth=self.smooth,
            over=self.over,
            mode=self.mode,
            class_weight=self.class_weight,
            **options,
        )


class DiceLoss(_RegionLoss):
    """One minus the F-beta score (Dice for ``beta=1``) of each region; see :func:`tversky_loss`.

    Args:
        beta: How much more recall counts than precision.
        smooth, over, mode, class_weight, ignore_index, reduction: See :func:`tversky_loss`.
    """

    def __init__(
        self,
        beta: float = 1.0,
        smooth: float = 1.0,
        over: str = "image",
        mode: str = "multiclass",
        class_weight: Sequence[float] | None = None,
        ignore_index: int = 255,
        reduction: str = "mean",
    ) -> None:
        super().__init__(smooth, over, mode, class_weight, ignore_index, reduction)
        self.alpha, self.beta = 1 / (1 + beta**2), beta**2 / (1 + beta**2)


class IoULoss(_RegionLoss):
    """One minus the Jaccard index of each region: ``alpha = beta = 1`` in :func:`tversky_loss`.

    Args:
        smooth, over, mode, class_weight, ignore_index, reduction: See :func:`tversky_loss`.
    """

    alpha = beta = 1.0


class TverskyLoss(_RegionLoss):
    """Module form of :func:`tversky_loss`.

    Args:
        alpha: Cost of false positives.
        beta: Cost of false negatives.
        smooth, over, mode, class_weight, ignore_index, reduction: See :func:`tversky_loss`.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        smooth: float = 1.0,
        over: str = "image",
        mode: str = "multiclass",
        class_weight: Sequence[float] | None = None,
        ignore_index: int = 255,
        reduction: str = "mean",
    ) -> None:
        super().__init__(smooth, over, mode, class_weight, ignore_index, reduction)
        self.alpha, self.beta = alpha, beta


class FocalTverskyLoss(TverskyLoss):
    """Tversky loss to the power ``gamma``; below 1 small losses count more, as in the paper (0.75).

    Args:
        gamma: The power.
        alpha, beta, smooth, over, mode, class_weight, ignore_index, reduction: See :class:`TverskyLoss`.
    """

    def __init__(
        self,
        gamma: float = 0.75,
        alpha: float = 0.3,
        beta: float = 0.7,
        smooth: float = 1.0,
        over: str = "image",
        mode: str = "multiclass",
        class_weight: Sequence[float] | None = None,
        ignore_index: int = 255,
        reduction: str = "mean",
    ) -> None:
        super().__init__(alpha, beta, smooth, over, mode, class_weight, ignore_index, reduction)
        self.gamma = gamma


class GeneralizedDiceLoss(_RegionLoss):
    """Module form of :func:`generalized_dice_loss`.

    Args:
        smooth, over, mode, ignore_index, reduction: See :func:`generalized_dice_loss`.
    """

    def __init__(
        self,
        smooth: float = 1e-5,
        over: str = "image",
        mode: str = "multiclass",
        ignore_index: int = 255,
        reduction: str = "mean",
    ) -> None:
        super().__init__(smooth, over, mode, None, ignore_index, reduction)

    def forward(self, logits: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor``, ``reduction`` and ``ignore_index``."""
        options = {"ignore_index": self.ignore_index, "reduction": self.reduction, **call}
        return generalized_dice_loss(logits, target, smooth=self.smooth, over=self.over, mode=self.mode, **options)


def _kept(logits: Tensor) -> Tensor | None:
    """Return room for the probabilities, if a backward pass will want them; a compiled one finds its own way."""
    return torch.empty_like(logits) if logits.requires_grad and not is_compiling() else None


def _softmax(logits: Tensor, kept: Tensor | None = None, piece: Any = ...) -> Tensor:
    """Return the softmax of ``(N, C, P)``, written into a piece of what is kept; torch's would make two copies of it.

    On a CPU exp2 costs a third of exp, and a compiler computes it where it is needed instead of storing it.
    """
    out = None if kept is None else kept[piece]
    power = torch.sub(logits, logits.amax(1, keepdim=True), out=out).mul_(LOG2_E).exp2_()
    return power.div_(power.sum(1, keepdim=True))


def _pooled(sums: RegionSums, over: str) -> RegionSums:
    return sums if over == "image" else RegionSums(*(each.sum(0, keepdim=True) for each in sums))
