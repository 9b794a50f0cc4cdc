"""Monitors: what a training hook thinks, without the hook; they know model and step, not a runner."""

from .best_weights import BestWeights
from .early_stopping import EarlyStopping, StoppingReport
from .generalization import Generalization, GeneralizationPoint, GeneralizationReport
from .gradient_health import GradientHealth, GradientReport
from .journal import Journal
from .layer_freeze import FreezeReport, FreezeRule, LayerFreeze, split_learning_rates
from .optimizer_switch import switch_optimizer
from .weight_shrinkage import SparsityReport, WeightShrinkage

__all__ = [
    "BestWeights",
    "EarlyStopping",
    "FreezeReport",
    "FreezeRule",
    "Generalization",
    "GeneralizationPoint",
    "GeneralizationReport",
    "GradientHealth",
    "GradientReport",
    "Journal",
    "LayerFreeze",
    "SparsityReport",
    "StoppingReport",
    "WeightShrinkage",
    "split_learning_rates",
    "switch_optimizer",
]
