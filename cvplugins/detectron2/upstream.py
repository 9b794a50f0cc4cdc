"""All that is changed in Detectron2's own objects, because they leave no other way; each names the upstream file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.engine.hooks import EvalHook
from torch import nn

__all__ = ["replace_forward", "restore_forward", "wrap_evaluation"]


def replace_forward(model: nn.Module, forward: Callable[..., Any]) -> None:
    """Call ``forward`` in the place of a model's own.

    A hook of torch's comes too late: Detectron2's RPN raises ``FloatingPointError`` within the model
    (detectron2/modeling/proposal_generator/proposal_utils.py, 0.6).
    """
    model.forward = forward


def restore_forward(model: nn.Module) -> None:
    """Give a model its own ``forward`` back."""
    vars(model).pop("forward", None)


def wrap_evaluation(hook: EvalHook, kind: type, *arguments: Any) -> None:
    """Put an object of a class around the function of an EvalHook, unless one is there.

    EvalHook (detectron2/engine/hooks.py, 0.6) has no event around an evaluation: what our hooks add to the results
    has to be there when it logs them.

    Args:
        hook: Of the trainer.
        kind: Takes the function and ``arguments``, and is called in its place.
        arguments: What it takes besides.
    """
    if not isinstance(hook._func, kind):
        hook._func = kind(hook._func, *arguments)
