"""Registers every loss of the core."""

from __future__ import annotations

from torch import nn

from cvplugins.losses import LOSSES, WeightPenalty
from cvplugins.registry import MODELS

from .composite_loss import CompositeLoss
from .loss_adapter import OpenMMLabLoss

__all__ = ["CompositeLoss"]


def _register(core: type[nn.Module]) -> None:
    adapted = type(core.__name__, (OpenMMLabLoss,), {"core": core, "__module__": __name__, "__doc__": core.__doc__})
    globals()[core.__name__] = adapted  # so that a model with this loss can be pickled
    MODELS.register_module(name=core.__name__, module=adapted)


for _core in LOSSES:
    if _core is not CompositeLoss.core:
        _register(_core)
MODELS.register_module(module=CompositeLoss)
MODELS.register_module(module=WeightPenalty)  # takes a model instead of a prediction and a target
