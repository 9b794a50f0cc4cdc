"""Detectron2: the core's plugins as heads, config keys and evaluators, for its trainer or for a loop of one's own.

Names are imported when they are asked for, so that what needs no Detectron2 can be used and tested without it.
"""

import importlib
from typing import Any

_HOMES = {
    "BestCheckpointHook": "hooks.best_checkpoint",
    "CvpluginsCascadeROIHeads": "models.roi_heads",
    "CvpluginsCheckpointer": "run.checkpoint",
    "CvpluginsDetectionEvaluator": "metrics.evaluators",
    "CvpluginsFastRCNNOutputLayers": "models.roi_heads",
    "CvpluginsInstanceSegmentationEvaluator": "metrics.evaluators",
    "CvpluginsMaskFormer": "mask2former.model",
    "CvpluginsMaskRCNNConvUpsampleHead": "models.mask_head",
    "CvpluginsRPN": "models.rpn",
    "CvpluginsRes5ROIHeads": "models.roi_heads",
    "CvpluginsRetinaNet": "models.retinanet",
    "CvpluginsSegmentationEvaluator": "metrics.evaluators",
    "CvpluginsStandardROIHeads": "models.roi_heads",
    "CvpluginsTrainer": "run.trainer",
    "EMAHook": "hooks.ema",
    "EarlyStoppingHook": "hooks.early_stopping",
    "GeneralizationHook": "hooks.generalization",
    "GradientClippingHook": "hooks.gradient_clipping",
    "GradientHealthHook": "hooks.gradient_health",
    "HardExampleMiningHook": "hooks.hard_examples",
    "LayerFreezeHook": "hooks.layer_freeze",
    "NonFiniteGuardHook": "hooks.nonfinite",
    "OptimizerSwitchHook": "hooks.optimizer_switch",
    "PluginHook": "hooks.plugin_hook",
    "ThroughputHook": "hooks.throughput",
    "TrainingStopped": "hooks.early_stopping",
    "ValidationLoss": "hooks.validation_loss",
    "WeightPenaltyHook": "hooks.weight_penalty",
    "add_cvplugins_config": "run.config_node",
    "add_mask2former_config": "mask2former.config",
    "apply_norm_policy": "models.norm",
    "build_cvplugins_hooks": "hooks.named",
    "build_validation_loader": "hooks.validation_loss",
    "insert_hooks": "hooks.named",
    "load_config": "run.config",
    "register_ade20k": "data.ade20k",
    "register_datasets": "data.catalog",
    "register_voc": "data.voc",
    "validate_cvplugins_config": "run.config_node",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    """Import what is asked for.

    Raises:
        ImportError: Detectron2 is not installed.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import detectron2.config  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{name} needs Detectron2: "
            'pip install --no-build-isolation "git+https://github.com/facebookresearch/detectron2"'
        ) from error
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
