"""Monitors: what a training hook thinks, without the hook; they know model and step, not a runner."""

from .gradient_health import GradientHealth, GradientReport

__all__ = ["GradientHealth", "GradientReport"]
