"""Losses on differences: boxes as offsets, or anything else that is a number."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .reduction import at_least_float32, check_reduction, weight_and_reduce

__all__ = ["L1Loss", "SmoothL1Loss", "l1_loss", "smooth_l1_loss"]


def l1_loss(
    values: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Absolute difference.

    Args:
        values: Predictions, any shape.
        target: The same shape.
        weight: Factor in the shape of ``values``, or without its second dimension.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides by; the number of values if None.

    Returns:
        A scalar, or the shape of ``values`` for ``"none"``; 0 for empty input. At least float32.

    Raises:
        ValueError: Shapes or ``reduction`` do not fit.

    Example:
        >>> import torch
        >>> l1_loss(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 0.0]))
        tensor(2.)
    """
    values, target = _fitting(values, target)
    return weight_and_reduce((values - target).abs(), weight, reduction, divisor)


def smooth_l1_loss(
    values: Tensor,
    target: Tensor,
    *,
    beta: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Absolute difference, rounded to a parabola below ``beta``: ``d ** 2 / (2 * beta)``, else ``d - beta / 2``.

    Reference: Girshick, Fast R-CNN, ICCV 2015, arXiv:1504.08083.

    Args:
        values: Predictions, any shape.
        target: The same shape.
        beta: Where the parabola ends, at least 0; 0 gives :func:`l1_loss`.
        weight: Factor in the shape of ``values``, or without its second dimension.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides by; the number of values if None.

    Returns:
        A scalar, or the shape of ``values`` for ``"none"``; 0 for empty input. At least float32.

    Raises:
        ValueError: Shapes, ``beta`` or ``reduction`` do not fit.

    Example:
        >>> import torch
        >>> smooth_l1_loss(torch.tensor([0.5, 3.0]), torch.tensor([0.0, 0.0]), reduction="none")
        tensor([0.1250, 2.5000])
    """
    _check_beta(beta)
    values, target = _fitting(values, target)
    return weight_and_reduce(F.smooth_l1_loss(values, target, reduction="none", beta=beta), weight, reduction, divisor)


class L1Loss(nn.Module):
    """Module form of :func:`l1_loss`.

    Args:
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = check_reduction(reduction)

    def forward(
        self,
        values: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        divisor: float | Tensor | None = None,
        reduction: str | None = None,
    ) -> Tensor:
        """Compute the loss."""
        return l1_loss(values, target, weight=weight, reduction=reduction or self.reduction, divisor=divisor)


class SmoothL1Loss(nn.Module):
    """Module form of :func:`smooth_l1_loss`.

    Args:
        beta: Where the parabola ends, at least 0.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
    """

    def __init__(self, beta: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        self.beta = _check_beta(beta)
        self.reduction = check_reduction(reduction)

    def forward(
        self,
        values: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        divisor: float | Tensor | None = None,
        reduction: str | None = None,
    ) -> Tensor:
        """Compute the loss."""
        return smooth_l1_loss(
            values,
            target,
            beta=self.beta,
            weight=weight,
            reduction=reduction or self.reduction,
            divisor=divisor,
        )


def _check_beta(beta: float) -> float:
    if beta < 0:
        raise ValueError(f"beta must be at least 0, not {beta}")
    return beta


def _fitting(values: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if values.shape != target.shape:
        raise ValueError(f"target {tuple(target.shape)} does not fit values {tuple(values.shape)}")
    return at_least_float32(values), at_least_float32(target)
