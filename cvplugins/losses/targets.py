"""What the losses that take class indices do with them first."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_indices", "check_range", "is_compiling", "known_to_hold", "one_per_class"]


def check_indices(logits: Tensor, target: Tensor, ignore_index: int, *, with_background: bool = False) -> None:
    """Raise ``ValueError`` unless ``target`` ``(N, *)`` holds classes of ``logits`` ``(N, C, *)``.

    See :func:`check_range`.

    Args:
        logits: Scores ``(N, C, *)``.
        target: Indices ``(N, *)``.
        ignore_index: An index that is allowed too.
        with_background: Whether ``C``, which is no class, is allowed too.
    """
    if logits.ndim < 2 or logits.shape[:1] + logits.shape[2:] != target.shape:
        raise ValueError(
            f"target {tuple(target.shape)} does not fit logits {tuple(logits.shape)}: "
            "expected class indices (N, *) for logits (N, C, *)"
        )
    check_range(target, logits.shape[1] + with_background, ignore_index)


def check_range(target: Tensor, num_classes: int, ignore_index: int) -> None:
    """Raise ``ValueError`` unless ``target`` holds integers in ``[0, num_classes)`` or ``ignore_index``.

    The range is checked on the CPU only: on a GPU it would wait for the device, whose own assertions catch it.

    Args:
        target: Indices, any shape.
        num_classes: How many classes there are.
        ignore_index: An index that is allowed too.
    """
    if target.is_floating_point():
        raise ValueError(f"target holds {target.dtype}; class indices have to be integers")
    if target.device.type != "cpu" or is_compiling() or not target.numel():
        return
    low, high = (int(extreme) for extreme in target.aminmax())  # one pass; what is wrong is looked for afterwards
    if low < 0 or high >= num_classes:
        wrong = target[(target != ignore_index) & ((target < 0) | (target >= num_classes))]
        if len(wrong):
            raise ValueError(
                f"target holds {int(wrong[0])}; expected 0 to {num_classes - 1}, or {ignore_index} to ignore"
            )


def one_per_class(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return the target of one binary classifier per class, and which logits count.

    Args:
        logits: Scores ``(N, C, *)``, or any shape if ``target`` has the same.
        target: Indices ``(N, *)``, where ``C`` stands for background; or probabilities in the shape of
            ``logits``, where ``ignore_index`` marks elements to ignore.
        ignore_index: What does not count.

    Returns:
        Probabilities and a mask, both in the shape of ``logits``.

    Example:
        >>> one_per_class(torch.zeros(2, 3), torch.tensor([1, 3]), ignore_index=-100)[0]
        tensor([[0., 1., 0.],
                [0., 0., 0.]])
    """
    if target.shape == logits.shape:
        valid = target != ignore_index
        target = target.to(logits.dtype)
        if known_to_hold(valid):
            return target, valid
        return target.where(valid, logits.new_zeros(())), valid
    check_indices(logits, target, ignore_index, with_background=True)
    valid = (target != ignore_index).unsqueeze(1).expand_as(logits)
    classes = torch.arange(logits.shape[1], device=logits.device).view(-1, *[1] * (logits.ndim - 2))
    return (target.unsqueeze(1) == classes).to(logits.dtype), valid


def known_to_hold(mask: Tensor) -> bool:
    """Return whether all of ``mask`` is true, as far as that can be asked: a GPU would be waited for.

    >>> known_to_hold(torch.tensor([True, False]))
    False
    """
    return mask.device.type == "cpu" and not is_compiling() and bool(mask.all())


def is_compiling() -> bool:
    """Return whether torch.compile reads this code, instead of Python running it."""
    asked = getattr(torch.compiler, "is_compiling", None)  # since torch 2.3
    return bool(asked()) if asked is not None else False
