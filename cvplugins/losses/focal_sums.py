"""Focal losses with their derivatives written out: nothing but the inputs is kept for the backward pass.

With ``p = sigmoid(x)`` and ``q = 1 - p`` the loss of a negative is ``n(x) = p ** gamma * softplus(x)`` and its
derivative ``p ** gamma * (gamma * q * softplus(x) + p)``. A positive is ``n(-x)``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from .chunks import chunks
from .once import once_differentiable

__all__ = ["IndexFocalSum", "SoftFocalSum", "SoftmaxFocal"]


def negative(logits: Tensor, gamma: float) -> Tensor:
    """Return ``n(x)``."""
    return torch.sigmoid(logits).pow_(gamma).mul_(F.softplus(logits))


def negative_slope(logits: Tensor, gamma: float) -> Tensor:
    """Return the derivative of ``n(x)``."""
    probability = torch.sigmoid(logits)
    slope = torch.addcmul(probability, F.softplus(logits), 1 - probability, value=gamma)
    return slope.mul_(probability.pow_(gamma))


class IndexFocalSum(Function):
    """Sum over one sigmoid per class. All are taken for negatives but those of the targets, which come apart.

    They are left out, not subtracted: the loss of a sure target is nothing, and as a negative it would be large.

    ``logits`` ``(N, C, P)``; ``index`` ``(N, 1, P)``, where anything but a class is background; ``factor`` of each
    element, broadcastable; ``share`` of the positives of each class ``(1, C or 1, 1)``.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, index: Tensor, factor: Tensor | None, share: Tensor | None, gamma: float
    ) -> Tensor:
        """Compute the sum."""
        ctx.save_for_backward(logits, index, factor, share)
        ctx.gamma = gamma
        total = logits.new_zeros(())
        for piece in chunks(logits):
            loss = _replaced(negative(logits[piece], gamma), index[piece], 0.0)
            total = total + _scaled(loss, _part(factor, piece), _of_each_class(share)).sum()
        total = total * _of_all(share)
        if logits.shape[1] == 0:
            return total
        targets = _targets(logits, index, factor, share)
        return total + (targets.scale * targets.miss.pow(gamma) * targets.softplus_of_minus).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradient of ``logits``."""
        logits, index, factor, share = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        each = outer * _of_all(share)
        for piece in chunks(logits):
            slope = negative_slope(logits[piece], ctx.gamma).mul_(each)
            gradient[piece] = _scaled(slope, _part(factor, piece), _of_each_class(share))
        if logits.shape[1]:
            targets = _targets(logits, index, factor, share)
            p, q, gamma = targets.probability, targets.miss, ctx.gamma
            slope = targets.scale * q.pow(gamma) * (gamma * p * targets.softplus_of_minus + q) * -outer
            _replaced(gradient, index, slope)
        return gradient, None, None, None, None


class SoftFocalSum(Function):
    """The same for targets that are probabilities ``t``: ``m ** gamma * bce`` with ``m = p (1 - t) + q t``.

    ``target`` has the shape of ``logits`` ``(N, C, P)``; the rest is as in :class:`IndexFocalSum`.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, factor: Tensor | None, share: Tensor | None, gamma: float
    ) -> Tensor:
        """Compute the sum."""
        ctx.save_for_backward(logits, target, factor, share)
        ctx.gamma = gamma
        total = logits.new_zeros(())
        for piece in chunks(logits):
            part, wanted = logits[piece], _probability(target[piece], logits.dtype)
            cross_entropy = F.binary_cross_entropy_with_logits(part, wanted, reduction="none")
            probability = torch.sigmoid(part)
            loss = _miss(part, probability, wanted).pow_(gamma).mul_(cross_entropy)
            total = total + _scaled(loss, _part(factor, piece), _mixed(share, wanted)).sum()
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradient of ``logits``."""
        logits, target, factor, share = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        for piece in chunks(logits):
            part, wanted = logits[piece], _probability(target[piece], logits.dtype)
            cross_entropy = F.binary_cross_entropy_with_logits(part, wanted, reduction="none")
            probability = torch.sigmoid(part)
            miss = _miss(part, probability, wanted)
            # p q / m is in [0, 1] because m >= p q, so that nothing overflows where m vanishes.
            change = probability * torch.sigmoid(-part) / miss.clamp(min=torch.finfo(miss.dtype).tiny)
            slope = change.mul_(1 - 2 * wanted).mul_(cross_entropy).mul_(ctx.gamma).add_(probability - wanted)
            slope.mul_(miss.pow_(ctx.gamma)).mul_(outer)
            gradient[piece] = _scaled(slope, _part(factor, piece), _mixed(share, wanted))
        return gradient, None, None, None, None


class SoftmaxFocal(Function):
    """Loss of each element ``(N, 1, *)`` over exclusive classes: ``-(1 - p_t) ** gamma * log(p_t)``.

    ``logits`` ``(N, C, *)``, ``index`` ``(N, 1, *)``.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, index: Tensor, gamma: float) -> Tensor:
        """Compute the losses."""
        ctx.save_for_backward(logits, index)
        ctx.gamma = gamma
        log_probability = logits.log_softmax(1).gather(1, index)
        return (-torch.expm1(log_probability)).pow_(gamma).mul_(-log_probability)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradient of ``logits``."""
        logits, index = ctx.saved_tensors
        gradient = logits.log_softmax(1)
        log_probability = gradient.gather(1, index)
        probability = log_probability.exp()
        miss = -torch.expm1(log_probability)
        # Where p is 1 the ratio is 0 / tiny instead of its limit of -1: a factor of 0 follows.
        ratio = probability * log_probability / miss.clamp(min=torch.finfo(miss.dtype).tiny)
        change = (ctx.gamma * ratio - 1) * miss.pow(ctx.gamma) * outer  # of log p_t, whose slope is [t] - p
        gradient.exp_().mul_(-change)
        return gradient.scatter_add_(1, index, change), None, None


def _part(factor: Tensor | None, piece: tuple[slice, slice, slice]) -> Tensor | None:
    return None if factor is None else factor[piece]


def _scaled(loss: Tensor, factor: Tensor | None, share: Tensor | None) -> Tensor:
    for each in (factor, share):
        if each is not None:
            loss.mul_(each)
    return loss


def _probability(target: Tensor, dtype: torch.dtype) -> Tensor:
    # What marks an element to ignore becomes a number that its factor of 0 removes.
    return target.to(dtype).clamp(0, 1)


def _of_each_class(share: Tensor | None) -> Tensor | None:
    return None if share is None or share.numel() == 1 else 1 - share


def _of_all(share: Tensor | None) -> Tensor | float:
    return 1 - share.reshape(()) if share is not None and share.numel() == 1 else 1.0


def _mixed(share: Tensor | None, wanted: Tensor) -> Tensor | None:
    return None if share is None else share * wanted + (1 - share) * (1 - wanted)


def _miss(logits: Tensor, probability: Tensor, wanted: Tensor) -> Tensor:
    # From two sigmoids: the difference to 1 would lose the small values that matter most.
    return probability * (1 - wanted) + torch.sigmoid(-logits) * wanted


def _inside(index: Tensor, logits: Tensor) -> Tensor:
    return index.clamp(0, logits.shape[1] - 1)


def _replaced(values: Tensor, index: Tensor, at_target: Tensor | float) -> Tensor:
    """Write into ``values`` ``(N, C, P)`` at the targets; an ``index`` that is background writes nothing."""
    if values.shape[1] == 0:
        return values
    inside = _inside(index, values)
    return values.scatter_(1, inside, torch.where(inside == index, at_target, values.gather(1, inside)))


class _Targets(NamedTuple):
    """What the logits of the targets give, each ``(N, 1, P)``."""

    probability: Tensor
    miss: Tensor
    softplus_of_minus: Tensor
    scale: Tensor  # factor times share; 0 for background


def _targets(logits: Tensor, index: Tensor, factor: Tensor | None, share: Tensor | None) -> _Targets:
    inside = _inside(index, logits)
    scale = (inside == index).to(logits.dtype)
    if factor is not None:
        scale = scale * factor.expand(-1, logits.shape[1], -1).gather(1, inside)
    if share is not None:
        scale = scale * share.expand_as(logits).gather(1, inside)
    value = logits.gather(1, inside)
    return _Targets(
        probability=torch.sigmoid(value), miss=torch.sigmoid(-value), softplus_of_minus=F.softplus(-value), scale=scale
    )
