"""Monitors: what a training hook thinks and does, without a framework."""

from .best_checkpoint_monitor import BestCheckpointMonitor
from .best_weights import BestWeights
from .early_stopping import EarlyStopping, StoppingReport
from .early_stopping_monitor import EarlyStoppingMonitor
from .evaluation_monitor import EvaluationMonitor, MetricMonitor
from .generalization import Generalization, GeneralizationPoint, GeneralizationReport
from .generalization_monitor import GeneralizationMonitor
from .gradient_clipping import ClippingRule, GradientClipping
from .gradient_clipping_monitor import GradientClippingMonitor
from .gradient_health import DetailReport, GradientHealth, GradientReport
from .gradient_health_monitor import GradientHealthMonitor
from .gradient_verdicts import GradientLimits, GradientVerdict
from .hard_example_draws import HardExamplePlan, limited_ratio, mix_in
from .hard_example_monitor import HardExampleMonitor
from .hard_examples import HardExampleReport, HardExamples
from .image_losses import VALIDATION_LOSSES, MeanLosses, mean_losses, to_numbers, undisturbed
from .journal import Journal
from .layer_freeze import FreezeReport, FreezeRule, LayerFreeze, split_learning_rates
from .layer_freeze_monitor import LayerFreezeMonitor
from .metric_names import MetricNames, mode_of, value_of
from .nonfinite import Fault, NonFiniteError, NonFiniteGuard, NonFiniteReport
from .nonfinite_monitor import Attempt, NonFiniteMonitor
from .optimizer_switch import switch_optimizer
from .optimizer_switch_monitor import OptimizerSwitchMonitor
from .replay import Replay, ReplayWriter, first_nonfinite_layer, reproduce
from .run import Monitor, Run, Step, watch_steps
from .throughput import Throughput, ThroughputReport
from .throughput_monitor import ThroughputMonitor
from .weight_average import WeightAverage
from .weight_average_monitor import WeightAverageMonitor
from .weight_penalty_monitor import WeightPenaltyMonitor
from .weight_shrinkage import SparsityReport, WeightShrinkage

__all__ = [
    "VALIDATION_LOSSES",
    "Attempt",
    "BestCheckpointMonitor",
    "BestWeights",
    "ClippingRule",
    "DetailReport",
    "EarlyStopping",
    "EarlyStoppingMonitor",
    "EvaluationMonitor",
    "Fault",
    "FreezeReport",
    "FreezeRule",
    "Generalization",
    "GeneralizationMonitor",
    "GeneralizationPoint",
    "GeneralizationReport",
    "GradientClipping",
    "GradientClippingMonitor",
    "GradientHealth",
    "GradientHealthMonitor",
    "GradientLimits",
    "GradientReport",
    "GradientVerdict",
    "HardExampleMonitor",
    "HardExamplePlan",
    "HardExampleReport",
    "HardExamples",
    "Journal",
    "LayerFreeze",
    "LayerFreezeMonitor",
    "MeanLosses",
    "MetricMonitor",
    "MetricNames",
    "Monitor",
    "NonFiniteError",
    "NonFiniteGuard",
    "NonFiniteMonitor",
    "NonFiniteReport",
    "OptimizerSwitchMonitor",
    "Replay",
    "ReplayWriter",
    "Run",
    "SparsityReport",
    "Step",
    "StoppingReport",
    "Throughput",
    "ThroughputMonitor",
    "ThroughputReport",
    "WeightAverage",
    "WeightAverageMonitor",
    "WeightPenaltyMonitor",
    "WeightShrinkage",
    "first_nonfinite_layer",
    "limited_ratio",
    "mean_losses",
    "mix_in",
    "mode_of",
    "reproduce",
    "split_learning_rates",
    "switch_optimizer",
    "to_numbers",
    "undisturbed",
    "value_of",
    "watch_steps",
]
