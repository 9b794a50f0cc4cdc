"""Monitors: what a training hook thinks, without the hook; they know model and step, not a runner."""

from .gradient_health import DetailReport, GradientHealth, GradientReport
from .gradient_verdicts import GradientLimits, GradientVerdict
from .throughput import Throughput, ThroughputReport

__all__ = [
    "DetailReport",
    "GradientHealth",
    "GradientLimits",
    "GradientReport",
    "GradientVerdict",
    "Throughput",
    "ThroughputReport",
]
