"""Monitors: what a training hook thinks, without the hook; they know model and step, not a runner."""

from .gradient_clipping import ClippingRule, GradientClipping
from .gradient_health import GradientHealth, GradientReport
from .nonfinite import Fault, NonFiniteError, NonFiniteGuard, NonFiniteReport
from .replay import Replay, first_nonfinite_layer, reproduce

__all__ = [
    "ClippingRule",
    "Fault",
    "GradientClipping",
    "GradientHealth",
    "GradientReport",
    "NonFiniteError",
    "NonFiniteGuard",
    "NonFiniteReport",
    "Replay",
    "first_nonfinite_layer",
    "reproduce",
]
