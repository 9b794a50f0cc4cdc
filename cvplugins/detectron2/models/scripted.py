"""TorchScript's losses, computed in the same way however often they were called before."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

__all__ = ["as_written"]


def as_written() -> AbstractContextManager[None]:
    """Run scripted functions operation by operation, in this block.

    TorchScript compiles the losses of RetinaNet, FCOS and Mask2Former, and the latter's matching, anew after their
    first calls, and rounds in another way from then on: a run that is resumed in a new process would not repeat the
    straight one. The backward pass follows what the forward pass ran.
    """
    found: AbstractContextManager[None] = torch.jit.optimized_execution(False)  # type: ignore[attr-defined]
    return found
