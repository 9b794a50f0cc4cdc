"""Monitors: what a training hook thinks, without the hook; they know model and step, not a runner."""

from .best_weights import BestWeights
from .early_stopping import EarlyStopping, StoppingReport
from .generalization import Generalization, GeneralizationPoint, GeneralizationReport
from .gradient_clipping import ClippingRule, GradientClipping
from .gradient_health import DetailReport, GradientHealth, GradientReport
from .gradient_verdicts import GradientLimits, GradientVerdict
from .hard_examples import HardExamplePlan, HardExampleReport, HardExamples, limited_ratio, mix_in
from .image_losses import MeanLosses, mean_losses
from .journal import Journal
from .layer_freeze import FreezeReport, FreezeRule, LayerFreeze, split_learning_rates
from .metric_names import MetricNames, mode_of, value_of
from .nonfinite import Fault, NonFiniteError, NonFiniteGuard, NonFiniteReport
from .optimizer_switch import switch_optimizer
from .replay import Replay, ReplayWriter, first_nonfinite_layer, reproduce
from .throughput import Throughput, ThroughputReport
from .weight_average import WeightAverage
from .weight_shrinkage import SparsityReport, WeightShrinkage

__all__ = [
    "BestWeights",
    "ClippingRule",
    "DetailReport",
    "EarlyStopping",
    "Fault",
    "FreezeReport",
    "FreezeRule",
    "Generalization",
    "GeneralizationPoint",
    "GeneralizationReport",
    "GradientClipping",
    "GradientHealth",
    "GradientLimits",
    "GradientReport",
    "GradientVerdict",
    "HardExamplePlan",
    "HardExampleReport",
    "HardExamples",
    "Journal",
    "LayerFreeze",
    "MeanLosses",
    "MetricNames",
    "NonFiniteError",
    "NonFiniteGuard",
    "NonFiniteReport",
    "Replay",
    "ReplayWriter",
    "SparsityReport",
    "StoppingReport",
    "Throughput",
    "ThroughputReport",
    "WeightAverage",
    "WeightShrinkage",
    "first_nonfinite_layer",
    "limited_ratio",
    "mean_losses",
    "mix_in",
    "mode_of",
    "reproduce",
    "split_learning_rates",
    "switch_optimizer",
    "value_of",
]
