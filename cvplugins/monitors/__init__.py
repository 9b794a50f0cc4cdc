"""Monitors: what a training hook thinks, without the hook; they know model and step, not a runner."""

from .gradient_health import GradientHealth, GradientReport
from .hard_examples import HardExampleReport, HardExamples, limited_ratio, mix_in

__all__ = ["GradientHealth", "GradientReport", "HardExampleReport", "HardExamples", "limited_ratio", "mix_in"]
