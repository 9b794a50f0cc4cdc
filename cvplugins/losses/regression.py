"""Losses on differences: boxes as offsets, or anything else that is a number."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from .contract import Loss
from .reduction import at_least_float32, check_reduction, constant, reduce_loss, weight_and_reduce

__all__ = [
    "CharbonnierLoss",
    "L1Loss",
    "L2Loss",
    "SmoothL1Loss",
    "charbonnier_loss",
    "l1_loss",
    "l2_loss",
    "smooth_l1_loss",
]


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
    return _reduced(F.l1_loss, values, target, weight, reduction, divisor)


def l2_loss(
    values: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Squared difference.

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
        >>> l2_loss(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 0.0]))
        tensor(5.)
    """
    return _reduced(F.mse_loss, values, target, weight, reduction, divisor)


def charbonnier_loss(
    values: Tensor,
    target: Tensor,
    *,
    eps: float = 1e-3,
    weight: Tensor | None = None,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Absolute difference, smooth at 0: ``sqrt(d ** 2 + eps ** 2)``; its least value is ``eps``.

    Reference: Charbonnier et al. 1994; as in Lai et al. 2017, arXiv:1704.03915.

    Args:
        values: Predictions, any shape.
        target: The same shape.
        eps: How wide the smooth part is, above 0.
        weight: Factor in the shape of ``values``, or without its second dimension.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides by; the number of values if None.

    Returns:
        A scalar, or the shape of ``values`` for ``"none"``; 0 for empty input. At least float32.

    Raises:
        ValueError: Shapes, ``eps`` or ``reduction`` do not fit.

    Example:
        >>> import torch
        >>> charbonnier_loss(torch.tensor([3.0]), torch.tensor([0.0]), eps=4.0)
        tensor(5.)
    """
    _check_eps(eps)
    values, target = _fitting(values, target)
    # hypot neither overflows for large differences nor vanishes for small ones.
    difference = values - target
    return weight_and_reduce(difference.hypot(constant(eps, difference)), weight, reduction, divisor)


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
    return _reduced(partial(F.smooth_l1_loss, beta=beta), values, target, weight, reduction, divisor)


class L1Loss(Loss):
    """Module form of :func:`l1_loss`.

    Args:
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = check_reduction(reduction)

    def forward(self, values: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor`` and ``reduction``."""
        return l1_loss(values, target, **{"reduction": self.reduction, **call})


class L2Loss(Loss):
    """Module form of :func:`l2_loss`.

    Args:
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = check_reduction(reduction)

    def forward(self, values: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor`` and ``reduction``."""
        return l2_loss(values, target, **{"reduction": self.reduction, **call})


class CharbonnierLoss(Loss):
    """Module form of :func:`charbonnier_loss`.

    Args:
        eps: How wide the smooth part is, above 0.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
    """

    def __init__(self, eps: float = 1e-3, reduction: str = "mean") -> None:
        super().__init__()
        self.eps = _check_eps(eps)
        self.reduction = check_reduction(reduction)

    def forward(self, values: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor`` and ``reduction``."""
        return charbonnier_loss(values, target, eps=self.eps, **{"reduction": self.reduction, **call})


class SmoothL1Loss(Loss):
    """Module form of :func:`smooth_l1_loss`.

    Args:
        beta: Where the parabola ends, at least 0.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
    """

    def __init__(self, beta: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        self.beta = _check_beta(beta)
        self.reduction = check_reduction(reduction)

    def forward(self, values: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor`` and ``reduction``."""
        return smooth_l1_loss(values, target, beta=self.beta, **{"reduction": self.reduction, **call})


def _check_beta(beta: float) -> float:
    if beta < 0:
        raise ValueError(f"beta must be at least 0, not {beta}")
    return beta


def _check_eps(eps: float) -> float:
    if eps <= 0:
        raise ValueError(f"eps must be above 0, not {eps}")
    return eps


def _fitting(values: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if values.shape != target.shape:
        raise ValueError(f"target {tuple(target.shape)} does not fit values {tuple(values.shape)}")
    return at_least_float32(values), at_least_float32(target)


def _reduced(
    function: Callable[..., Tensor],
    values: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
    divisor: float | Tensor | None,
) -> Tensor:
    """Apply a loss of torch, which sums without keeping the loss of each value where no weight needs that."""
    values, target = _fitting(values, target)
    if weight is not None or check_reduction(reduction) == "none":
        return weight_and_reduce(function(values, target, reduction="none"), weight, reduction, divisor)
    if divisor is None and values.numel():
        return function(values, target, reduction=reduction)
    return reduce_loss(function(values, target, reduction="sum"), reduction, divisor)
