"""Online hard-example mining: only the elements with the largest loss count.

References: Shrivastava et al., Training Region-based Object Detectors with Online Hard Example Mining, CVPR 2016,
arXiv:1604.03540; Liu et al., SSD, ECCV 2016, arXiv:1512.02325 (three negatives for each positive).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .contract import Loss, ignored_index, uses_sigmoid
from .reduction import check_over, check_reduction, weight_and_reduce

__all__ = ["OHEMLoss", "hardest", "hardest_negatives"]


def hardest(
    loss: Tensor,
    *,
    keep_ratio: float = 0.25,
    min_kept: int = 0,
    valid: Tensor | None = None,
    over: str = "batch",
) -> Tensor:
    """Return which elements have the largest loss.

    Args:
        loss: Loss per element, ``(N, *)``; no gradient flows through the choice. Of equal losses the first counts.
        keep_ratio: Share of the valid elements that is kept, in [0, 1], rounded up.
        min_kept: Never keep fewer, if there are as many valid ones.
        valid: Which elements may be kept, in the shape of ``loss``; all if None.
        over: ``"batch"``: the hardest of all. ``"image"``: the hardest of each ``loss[i]``.

    Returns:
        A mask in the shape of ``loss``. It costs a sort, and no wait for the device.

    Raises:
        ValueError: An option or a shape does not fit.

    Example:
        >>> hardest(torch.tensor([0.1, 0.9, 0.5, 0.2]), keep_ratio=0.5)
        tensor([False,  True,  True, False])
    """
    _check_counts(keep_ratio, None, min_kept)
    losses, candidates = _rows(loss, over), _rows(_mask("valid", valid, loss), over)
    # Less a little, so that a product like 0.3 * 50, in floats a little above 15, is not rounded up to 16.
    share = (candidates.sum(1) * keep_ratio - 1e-4).ceil()
    return _largest(losses, candidates, share.clamp(min=min_kept)).view_as(loss)


def hardest_negatives(
    loss: Tensor,
    positive: Tensor,
    *,
    negative_ratio: float = 3.0,
    min_kept: int = 0,
    valid: Tensor | None = None,
    over: str = "batch",
) -> Tensor:
    """Return which elements are positive, or negative with the largest loss.

    Args:
        loss: Loss per element, ``(N, *)``; no gradient flows through the choice. Of equal losses the first counts.
        positive: Which elements are positive, in the shape of ``loss``; all of them are kept.
        negative_ratio: Negatives kept for each positive, rounded down; without a positive none, as in SSD.
        min_kept: Never keep fewer, positives and negatives together, if there are as many valid ones.
        valid: Which elements may be kept, in the shape of ``loss``; all if None.
        over: ``"batch"``: counted over all. ``"image"``: counted within each ``loss[i]``, as in SSD.

    Returns:
        A mask in the shape of ``loss``. It costs a sort, and no wait for the device.

    Raises:
        ValueError: An option or a shape does not fit.

    Example:
        >>> positive = torch.tensor([True, False, False, False])
        >>> hardest_negatives(torch.tensor([0.1, 0.9, 0.5, 0.2]), positive, negative_ratio=2)
        tensor([ True,  True,  True, False])
    """
    _check_counts(None, negative_ratio, min_kept)
    allowed = _mask("valid", valid, loss)
    positive = _mask("positive", positive, loss) & allowed
    negatives, found = _rows(allowed & ~positive, over), _rows(positive, over).sum(1)
    count = torch.maximum((found * negative_ratio + 1e-4).floor(), min_kept - found)
    return positive | _largest(_rows(loss, over), negatives, count).view_as(loss)


class OHEMLoss(Loss):
    """Any loss per element, of which only the hardest elements count.

    An element is a sample or a pixel. Where the wrapped loss gives one value per class, ``(N, C, *)`` as
    :class:`BCELoss` and a sigmoid :class:`FocalLoss` do, the hardness of an element is their sum, and its values
    are kept or dropped together. Hardness is what an element adds to the loss, ``weight`` included, as in mmdet's
    SSDHead. An element of weight 0 is never kept, for mmdet's heads say by it what does not count; nor is an ignored
    one.

    mmseg's OHEMPixelSampler without a threshold is ``keep_ratio=0, min_kept=n * images``. Its threshold, which keeps
    every pixel whose true class has a probability below it, is not offered: that sampler computes a weight and
    works with every loss of this package. SSD's rule is ``negative_ratio=3, over="image"``; where samples of several
    images come as one dimension, as from mmdet's heads, ``over="batch"`` counts them together.

    ``"mean"`` divides by the number of kept values if no divisor is given.

    Args:
        loss: The wrapped loss, called as ``loss(pred, target, weight=weight, reduction="none")``, with ``ignore_index``
            if given; else its own ``ignore_index`` counts, if it has one.
        keep_ratio: Share of the valid elements that is kept; see :func:`hardest`.
        negative_ratio: Negatives kept for each positive; see :func:`hardest_negatives`. Just one of the two ratios.
        background: The index of negatives, for ``negative_ratio``: the number of classes in mmdet, 0 in
            torchvision. Every other index is positive, unless ignored.
        min_kept: Never keep fewer elements, if there are as many valid ones; of each image if over images.
        over: ``"batch"`` or ``"image"``; images need losses ``(N, *)`` with more than one dimension.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.

    Raises:
        TypeError: ``loss`` is no module.
        ValueError: An option does not fit, or, when called, a shape.

    Example:
        >>> from cvplugins.losses import CrossEntropyLoss
        >>> logits = torch.tensor([[0.0, 0.0], [9.0, 0.0]])
        >>> OHEMLoss(CrossEntropyLoss(), keep_ratio=0.5)(logits, torch.tensor([0, 0]))  # ln 2, of the harder
        tensor(0.6931)
    """

    target_kind = "parts"

    def __init__(
        self,
        loss: nn.Module,
        keep_ratio: float | None = None,
        negative_ratio: float | None = None,
        background: int | None = None,
        min_kept: int = 0,
        over: str = "batch",
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if not isinstance(loss, nn.Module):
            raise TypeError(f"OHEMLoss wraps a loss module, not {type(loss).__name__}; build it first")
        if (keep_ratio is None) == (negative_ratio is None):
            raise ValueError(
                f"keep_ratio is {keep_ratio} and negative_ratio {negative_ratio}; they exclude each other: give one"
            )
        if (negative_ratio is None) != (background is None):
            raise ValueError("negative_ratio and background, the index of negatives, belong together: give both")
        _check_counts(keep_ratio, negative_ratio, min_kept)
        self.loss = loss
        self.keep_ratio = keep_ratio
        self.negative_ratio = negative_ratio
        self.background = background
        self.min_kept = min_kept
        self.over = check_over(over)
        self.reduction = check_reduction(reduction)
        self.use_sigmoid = uses_sigmoid(loss)  # what mmdet's heads ask for

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None = None, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``divisor``, ``reduction`` and ``ignore_index``."""
        reduction, divisor = call.pop("reduction", self.reduction), call.pop("divisor", None)
        each = self.loss(pred, target, weight=weight, reduction="none", **call)
        ignore_index = call.get("ignore_index", ignored_index(self.loss))
        counted = torch.ones_like(target, dtype=torch.bool) if ignore_index is None else target != ignore_index
        valid = _per_element(counted, pred)
        if weight is not None and weight.ndim > 0:
            valid = valid & _per_element(weight != 0, pred)
        hardness = _per_element(each.detach(), pred)
        if hardness.shape != valid.shape:
            raise ValueError(
                f"{type(self.loss).__name__} gives {tuple(each.shape)} for target {tuple(target.shape)}: "
                "OHEMLoss needs a loss per element, which losses of regions are not"
            )
        kept = self.kept(hardness, target, valid)
        if each.shape != kept.shape:
            kept = kept.unsqueeze(1) & (counted if counted.shape == each.shape else counted.unsqueeze(1))
        return weight_and_reduce(each, None, reduction, divisor, kept.expand_as(each))

    def kept(self, hardness: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Return which elements count; all arguments are of shape ``(N, *)``."""
        if self.negative_ratio is None or self.background is None:
            ratio = 0.0 if self.keep_ratio is None else self.keep_ratio
            return hardest(hardness, keep_ratio=ratio, min_kept=self.min_kept, valid=valid, over=self.over)
        if target.shape != hardness.shape or target.is_floating_point():
            raise ValueError(f"target {tuple(target.shape)} does not fit negative_ratio: expected class indices (N, *)")
        return hardest_negatives(
            hardness,
            target != self.background,
            negative_ratio=self.negative_ratio,
            min_kept=self.min_kept,
            valid=valid,
            over=self.over,
        )


def _per_element(values: Tensor, pred: Tensor) -> Tensor:
    """Join the classes of ``(N, C, *)``, the shape of ``pred``: any of a mask, else the sum; ``(N, *)`` stays."""
    if values.shape != pred.shape or pred.ndim == 1:
        return values
    return values.any(1) if values.dtype == torch.bool else values.sum(1)


def _largest(losses: Tensor, candidates: Tensor, count: Tensor) -> Tensor:
    """Return the ``count`` candidates of each row with the largest loss; fewer if there are not as many."""
    order = losses.masked_fill(~candidates, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    rank = torch.arange(losses.shape[1], device=losses.device)
    return torch.zeros_like(candidates).scatter(1, order, rank < count.unsqueeze(1)) & candidates


def _rows(values: Tensor, over: str) -> Tensor:
    """Return one row per set in which elements compete: all of them, or those of each image."""
    if check_over(over) == "batch":
        return values.reshape(1, -1)
    if values.ndim < 2:
        raise ValueError(f"loss {tuple(values.shape)} does not fit over='image': expected (N, *); use over='batch'")
    return values.flatten(1)


def _mask(name: str, mask: Tensor | None, loss: Tensor) -> Tensor:
    if mask is None:
        return torch.ones_like(loss, dtype=torch.bool)
    if mask.shape != loss.shape:
        raise ValueError(f"{name} {tuple(mask.shape)} does not fit the loss per element {tuple(loss.shape)}")
    return mask


def _check_counts(keep_ratio: float | None, negative_ratio: float | None, min_kept: int) -> None:
    if keep_ratio is not None and not 0 <= keep_ratio <= 1:
        raise ValueError(f"keep_ratio must be in [0, 1], not {keep_ratio}")
    if negative_ratio is not None and negative_ratio < 0:
        raise ValueError(f"negative_ratio must be at least 0, not {negative_ratio}")
    if min_kept < 0:
        raise ValueError(f"min_kept must be at least 0, not {min_kept}")
