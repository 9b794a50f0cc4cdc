"""Detectron2: the core's plugins as heads, config keys and evaluators, for its trainer or for a loop of one's own.

Names are imported when they are asked for, so that what needs no Detectron2 can be used and tested without it.
"""

import importlib
from typing import Any

_HOMES = {
    "BestCheckpointHook": "best_checkpoint_hook",
    "CvpluginsCascadeROIHeads": "roi_heads",
    "CvpluginsCheckpointer": "checkpoint",
    "CvpluginsDetectionEvaluator": "evaluators",
    "CvpluginsFastRCNNOutputLayers": "roi_heads",
    "CvpluginsInstanceSegmentationEvaluator": "evaluators",
    "CvpluginsMaskFormer": "mask2former",
    "CvpluginsMaskRCNNConvUpsampleHead": "mask_head",
    "CvpluginsRPN": "rpn",
    "CvpluginsRes5ROIHeads": "roi_heads",
    "CvpluginsRetinaNet": "retinanet",
    "CvpluginsSegmentationEvaluator": "evaluators",
    "CvpluginsStandardROIHeads": "roi_heads",
    "CvpluginsTrainer": "trainer",
    "EMAHook": "ema_hook",
    "EarlyStoppingHook": "early_stopping_hook",
    "GeneralizationHook": "generalization_hook",
    "GradientClippingHook": "gradient_clipping_hook",
    "GradientHealthHook": "gradient_health_hook",
    "HardExampleMiningHook": "hard_examples_hook",
    "LayerFreezeHook": "layer_freeze_hook",
    "NonFiniteGuardHook": "nonfinite_hook",
    "OptimizerSwitchHook": "optimizer_switch_hook",
    "PluginHook": "plugin_hook",
    "ThroughputHook": "throughput_hook",
    "TrainingStopped": "early_stopping_hook",
    "ValidationLoss": "validation_loss",
    "WeightPenaltyHook": "weight_penalty_hook",
    "add_cvplugins_config": "config",
    "add_mask2former_config": "mask2former_project",
    "apply_norm_policy": "norm",
    "build_cvplugins_hooks": "hooks",
    "build_validation_loader": "validation_loss",
    "insert_hooks": "hooks",
    "load_config": "run_files",
    "register_ade20k": "ade20k",
    "register_datasets": "data",
    "register_voc": "data",
    "validate_cvplugins_config": "config",
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
