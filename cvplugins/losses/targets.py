"""What the losses that take class indices do with them first."""

from __future__ import annotations

import torch
from torch import Tensor

try:
    from torch.compiler import is_compiling  # since torch 2.3
except ImportError:
    from torch._utils import is_compiling

__all__ = ["check_indices", "check_range", "is_compiling", "one_per_class", "valid_elements"]


def check_indices(logits: Tensor, target: Tensor, ignore_index: int, *, with_background: bool = False) -> Tensor:
    """Return ``target`` ``(N, *)`` as int64, or raise ``ValueError`` unless it holds classes of ``logits``.

    See :func:`check_range`.

    Args:
        logits: Scores ``(N, C, *)``.
        target: Indices ``(N, *)``, any integers or booleans.
        ignore_index: An index that is allowed too.
        with_background: Whether ``C``, which is no class, is allowed too.
    """
    if logits.ndim < 2 or logits.shape[:1] + logits.shape[2:] != target.shape:
        raise ValueError(
            f"target {tuple(target.shape)} does not fit logits {tuple(logits.shape)}: "
            "expected class indices (N, *) for logits (N, C, *)"
        )
    return check_range(target, logits.shape[1] + with_background, ignore_index)


def check_range(target: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Return ``target`` as int64, or raise ``ValueError`` unless it is in ``[0, num_classes)`` or ``ignore_index``.

    The range is checked on the CPU only: on a GPU it would wait for the device, whose own assertions catch it.

    Args:
        target: Indices, any shape.
        num_classes: How many classes there are.
        ignore_index: An index that is allowed too.
    """
    if target.is_floating_point():
        raise ValueError(f"target holds {target.dtype}; class indices have to be integers")
    target = target.long()  # an ignore_index of -100 would be 156 among bytes
    if target.device.type != "cpu" or is_compiling() or not target.numel():
        return target
    low, high = (int(extreme) for extreme in target.aminmax())  # one pass; what is wrong is looked for afterwards
    if low < 0 or high >= num_classes:
        wrong = target[(target != ignore_index) & ((target < 0) | (target >= num_classes))]
        if len(wrong):
            raise ValueError(
                f"target holds {int(wrong[0])}; expected 0 to {num_classes - 1}, or {ignore_index} to ignore"
            )
    return target


def one_per_class(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor | None]:
    """Return the target of one binary classifier per class, and which logits count.

    Args:
        logits: Scores ``(N, C, *)``, or any shape if ``target`` has the same.
        target: Indices ``(N, *)``, where ``C`` stands for background; or probabilities in the shape of
            ``logits``, where ``ignore_index`` marks elements to ignore.
        ignore_index: What does not count.

    Returns:
        Probabilities and a mask, both in the shape of ``logits``; None for a mask that is known to be all true.

    Example:
        >>> one_per_class(torch.zeros(2, 3), torch.tensor([1, 3]), ignore_index=-100)[0]
        tensor([[0., 1., 0.],
                [0., 0., 0.]])
    """
    if target.shape == logits.shape:
        valid = valid_elements(target, ignore_index)
        target = target.to(logits.dtype)
        return (target if valid is None else target.where(valid, logits.new_zeros(()))), valid
    target = check_indices(logits, target, ignore_index, with_background=True)
    valid = valid_elements(target, ignore_index)
    valid = None if valid is None else valid.unsqueeze(1).expand_as(logits)
    classes = torch.arange(logits.shape[1], device=logits.device).view(-1, *[1] * (logits.ndim - 2))
    return (target.unsqueeze(1) == classes).to(logits.dtype), valid


def valid_elements(target: Tensor, ignore_index: int) -> Tensor | None:
    """Return which elements count, or None if it is known that all do.

    It is asked on the CPU only, by one look at the extreme value on that side: a GPU would be waited for.

    >>> valid_elements(torch.tensor([0, 255]), ignore_index=255)
    tensor([ True, False])
    >>> valid_elements(torch.tensor([0, 2]), ignore_index=255)
    """
    if target.device.type == "cpu" and not is_compiling() and target.numel() and target.dtype != torch.bool:
        is_below = ignore_index < 0
        if target.is_floating_point():
            nearest = target.amin() if is_below else target.amax()
        else:
            nearest = target.aminmax()[0 if is_below else 1]  # vectorised, which amin of integers is not
        if nearest > ignore_index if is_below else nearest < ignore_index:
            return None
    return target != ignore_index
