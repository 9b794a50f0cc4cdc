"""Derivatives written by hand, of which there is no second one."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from .targets import is_compiling

__all__ = ["once_differentiable"]


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Mark the ``backward`` of a Function: it refuses to be differentiated, which ``create_graph`` asks for.

    torch's decorator of this name only makes an error of a second ``backward()`` that passes a gradient which is no
    constant. Below a mean, and with ``torch.autograd.grad``, the second derivative is 0 there without a word, so that a
    penalty on the gradient does nothing. Before torch 2.3, whose compiler can not read this one, it is torch's.
    """
    if not hasattr(torch.compiler, "is_compiling"):
        theirs: Callable[..., Any] = torch.autograd.function.once_differentiable(backward)
        return theirs

    @wraps(backward)
    def wrapper(ctx: Any, *outer: Tensor | None) -> Any:
        if is_compiling():  # a compiled backward pass has no second one either, and says so itself
            return backward(ctx, *outer)
        if torch.is_grad_enabled():
            raise RuntimeError(
                "this loss has no second derivative: its backward pass can not run with create_graph=True; take the "
                "gradient of another loss for penalties and Hessians"
            )
        with torch.no_grad():
            return backward(ctx, *outer)

    return wrapper
