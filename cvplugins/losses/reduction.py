"""What every loss does before and after its formula: precision, class weights, reduction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cvplugins.precision import at_least_float32, full_precision

__all__ = [
    "REDUCTIONS",
    "at_least_float32",
    "check_over",
    "check_reduction",
    "class_weights",
    "constant",
    "count_elements",
    "factor_per_element",
    "full_precision",
    "reduce_loss",
    "weight_and_reduce",
]

REDUCTIONS = ("none", "sum", "mean")


def class_weights(name: str, value: float | Sequence[float] | Tensor, logits: Tensor) -> Tensor:
    """Return one factor per class, shaped to broadcast over ``logits`` ``(N, C, *)``.

    Raises:
        ValueError: ``value`` holds neither one number nor ``C`` of them.

    Example:
        >>> class_weights("alpha", [1.0, 2.0], torch.zeros(4, 2, 3)).shape
        torch.Size([1, 2, 1])
    """
    factors = constant(value, logits).reshape(-1)
    num_classes = logits.shape[1] if logits.ndim > 1 else 1
    if logits.ndim < 2 and factors.numel() != 1:
        raise ValueError(f"{name} holds {factors.numel()} numbers; logits {tuple(logits.shape)} have no classes, use 1")
    if factors.numel() not in (1, num_classes):
        raise ValueError(f"{name} holds {factors.numel()} numbers; use 1 or {num_classes}, one per class")
    return factors.view(1, -1, *[1] * (logits.ndim - 2)) if logits.ndim > 1 else factors


def constant(value: float | Sequence[float] | Tensor, like: Tensor) -> Tensor:
    """Return numbers in the type and on the device of ``like``, without waiting for a GPU.

    >>> constant([1, 2], torch.zeros(3))
    tensor([1., 2.])
    """
    if isinstance(value, (int, float)):
        return like.new_full((), value)  # written by the device itself
    return torch.as_tensor(value, dtype=like.dtype).to(like.device, non_blocking=True)


def check_over(over: str) -> str:
    """Return what regions are over, or raise ``ValueError`` naming the accepted words.

    >>> check_over("batch")
    'batch'
    """
    if over not in ("image", "batch"):
        raise ValueError(f"unknown over {over!r}; use 'image' or 'batch'")
    return over


def check_reduction(reduction: str) -> str:
    """Return ``reduction``, or raise ``ValueError`` naming the accepted ones.

    >>> check_reduction("mean")
    'mean'
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"unknown reduction {reduction!r}; use one of {', '.join(map(repr, REDUCTIONS))}")
    return reduction


def reduce_loss(loss: Tensor, reduction: str, divisor: float | Tensor | None = None) -> Tensor:
    """Reduce a loss per element to what a caller asks for.

    Args:
        loss: Loss per element, any shape; elements that do not count are 0.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides the sum by; the number of elements if None. The frameworks pass
            the number of positive samples, averaged over ranks, here. A divisor of 0 counts as a tiny one,
            so that a batch without valid elements gives 0 and not NaN.

    Returns:
        ``loss`` itself for ``"none"``, else a scalar; 0 for an empty ``loss``, still connected to the graph.

    Raises:
        ValueError: An unknown reduction, or a divisor for ``"sum"``, which does not divide.

    Example:
        >>> reduce_loss(torch.tensor([1.0, 2.0, 3.0]), "mean", divisor=2)
        tensor(3.)
    """
    check_reduction(reduction)
    if reduction == "none":
        return loss
    if reduction == "sum":
        if divisor is not None:
            raise ValueError("reduction 'sum' takes no divisor (avg_factor); use 'mean'")
        return loss.sum()
    if divisor is None:
        divisor = loss.numel()
    tiny = torch.finfo(torch.float32).eps
    return loss.sum() / (divisor.clamp(min=tiny) if isinstance(divisor, Tensor) else max(divisor, tiny))


def count_elements(logits: Tensor, valid: Tensor | None) -> int | Tensor:
    """Return how many logits ``(N, C, *)`` count, where ``valid`` is ``(N, *)`` or in their shape, or None for all.

    >>> count_elements(torch.zeros(2, 3), torch.tensor([True, False]))
    tensor(3)
    """
    if valid is None:
        return logits.numel()
    return valid.sum() * (logits.numel() // max(1, valid.numel()))


def factor_per_element(logits: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor | None:
    """Return what each element counts, its weight or 0, broadcastable to ``logits`` seen as ``(N, C, P)``.

    None if all count once.

    Args:
        logits: ``(N, C, *)``, or ``(N,)``.
        valid: Which elements count, ``(N, *)`` or in the shape of ``logits``; all if None.
        weight: Factor in either shape, or one for all.

    Raises:
        ValueError: ``weight`` does not fit.

    Example:
        >>> factor_per_element(torch.zeros(2, 3), torch.tensor([True, False]), torch.tensor(2.0)).shape
        torch.Size([2, 1, 1])
    """
    factor = None if valid is None else _three_dimensional(valid, logits).to(logits.dtype)
    if weight is None:
        return factor
    if weight.ndim > 0:
        if weight.shape not in (logits.shape, logits.shape[:1] + logits.shape[2:]):
            raise ValueError(f"weight {tuple(weight.shape)} does not fit the loss {tuple(logits.shape)}")
        weight = _three_dimensional(weight, logits)
    else:
        weight = weight.expand(len(logits), 1, math.prod(logits.shape[2:]))
    return weight.to(logits.dtype) if factor is None else factor * weight


def _three_dimensional(values: Tensor, logits: Tensor) -> Tensor:
    """Return ``(N, C, P)`` for values in the shape of the logits, else ``(N, 1, P)``."""
    channels = logits.shape[1] if values.shape == logits.shape and logits.ndim > 1 else 1
    return values.reshape(len(logits), channels, math.prod(logits.shape[2:]))


def weight_and_reduce(
    loss: Tensor,
    weight: Tensor | None,
    reduction: str,
    divisor: float | Tensor | None,
    valid: Tensor | None = None,
) -> Tensor:
    """Drop what is ignored, apply weights and reduce.

    Args:
        loss: Loss per element, ``(N, *)`` or ``(N, C, *)``.
        weight: Factor in the shape of ``loss``, or without its second dimension, or one for all.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides by; if None the valid elements, or all.
        valid: Which elements count, in the shape of ``loss``.

    Raises:
        ValueError: ``weight`` or ``reduction`` does not fit.

    Example:
        >>> weight_and_reduce(torch.ones(2, 3), torch.tensor([1.0, 0.0]), "sum", None)
        tensor(3.)
    """
    if valid is not None:
        loss = loss.where(valid, loss.new_zeros(()))
        divisor = valid.sum() if divisor is None and reduction == "mean" else divisor
    if weight is not None:
        if weight.shape == loss.shape[:1] + loss.shape[2:] and weight.ndim == loss.ndim - 1:
            weight = weight.unsqueeze(1)
        elif weight.ndim > 0 and weight.shape != loss.shape:
            raise ValueError(f"weight {tuple(weight.shape)} does not fit the loss {tuple(loss.shape)}")
        loss = loss * weight
    return reduce_loss(loss, reduction, divisor)
