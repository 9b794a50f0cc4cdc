"""Values on which Detectron2 dies late, hangs or does nothing, and that it does not refuse itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.data.detection_utils import convert_PIL_to_numpy

from cvplugins.errors import UserError
from cvplugins.refusals import did_you_mean, shown

from .value_relations import check_relations

__all__ = ["check_values"]

FORMATS = ("BGR", "RGB", "L", "YUV-BT.601")
LARGEST_SEED = 2**32 - 1


class _Range(NamedTuple):
    """What a key may be: a test, and its words for the message."""

    holds: Callable[[Any], bool]
    words: str


COUNT = _Range(lambda value: value >= 1, "1 or more")
NOT_NEGATIVE = _Range(lambda value: value >= 0, "0 or more")
FINITE = _Range(lambda value: 0 <= value < math.inf, "a finite number, 0 or more")
POSITIVE = _Range(lambda value: value > 0, "more than 0")
SHARE = _Range(lambda value: 0 <= value <= 1, "0 to 1")

RANGES = {
    "SOLVER.IMS_PER_BATCH": COUNT,
    "SOLVER.MAX_ITER": COUNT,
    "SOLVER.CHECKPOINT_PERIOD": COUNT,
    "SOLVER.BASE_LR": FINITE,
    "SOLVER.MOMENTUM": FINITE,
    "SOLVER.WEIGHT_DECAY": FINITE,
    "SOLVER.WEIGHT_DECAY_NORM": FINITE,
    "SOLVER.WEIGHT_DECAY_BIAS": FINITE,
    "SOLVER.BIAS_LR_FACTOR": FINITE,
    "SOLVER.GAMMA": FINITE,
    "SOLVER.WARMUP_ITERS": NOT_NEGATIVE,
    "SOLVER.WARMUP_FACTOR": FINITE,
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": POSITIVE,
    "SOLVER.REFERENCE_WORLD_SIZE": NOT_NEGATIVE,
    "DATALOADER.NUM_WORKERS": NOT_NEGATIVE,
    "DATALOADER.RANDOM_SUBSET_RATIO": _Range(lambda value: 0 < value <= 1, "more than 0, at most 1"),
    "DATALOADER.REPEAT_THRESHOLD": NOT_NEGATIVE,
    "TEST.PRECISE_BN.NUM_ITER": COUNT,
    "TEST.DETECTIONS_PER_IMAGE": _Range(lambda value: value >= 1 or value == -1, "1 or more, -1 for all"),
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": COUNT,
    "MODEL.ROI_HEADS.NUM_CLASSES": COUNT,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": COUNT,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": SHARE,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": SHARE,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": SHARE,
    "MODEL.RPN.POSITIVE_FRACTION": SHARE,
    "MODEL.RPN.NMS_THRESH": SHARE,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": COUNT,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": COUNT,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": COUNT,
    "MODEL.RPN.POST_NMS_TOPK_TEST": COUNT,
    "MODEL.RETINANET.NMS_THRESH_TEST": SHARE,
    "MODEL.RETINANET.SCORE_THRESH_TEST": SHARE,
    "MODEL.RETINANET.TOPK_CANDIDATES_TEST": COUNT,
    "MODEL.RETINANET.NUM_CONVS": NOT_NEGATIVE,
    "MODEL.FPN.OUT_CHANNELS": COUNT,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": COUNT,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": COUNT,
    "MODEL.RESNETS.WIDTH_PER_GROUP": COUNT,
    "MODEL.RESNETS.NUM_GROUPS": COUNT,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": COUNT,
    "MODEL.ROI_BOX_HEAD.FC_DIM": COUNT,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": COUNT,
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": NOT_NEGATIVE,
    "VIS_PERIOD": NOT_NEGATIVE,
    "SEED": _Range(lambda value: value <= LARGEST_SEED, f"at most {LARGEST_SEED}; below 0 one is drawn"),
    "CVPLUGINS.TRAIN.BASE_BATCH_SIZE": NOT_NEGATIVE,
}
CHOICES = {
    "SOLVER.LR_SCHEDULER_NAME": (
        *("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR", "WarmupPolyLR"),
    ),
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("value", "norm"),
    "DATALOADER.SAMPLER_TRAIN": (
        *("TrainingSampler", "RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler"),
        *("WeightedTrainingSampler", "WeightedCategoryTrainingSampler"),
    ),
    "INPUT.MASK_FORMAT": ("polygon", "bitmask"),
    "INPUT.RANDOM_FLIP": ("none", "horizontal", "vertical"),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": ("choice", "range"),
    "INPUT.CROP.TYPE": ("relative", "relative_range", "absolute", "absolute_range"),
}


def check_values(cfg: CfgNode) -> None:
    """Raise ``UserError`` for a value outside what Detectron2 can work with; the message has key, value and choice."""
    for path, value in _leaves(cfg):
        if isinstance(value, float) and math.isnan(value):
            raise UserError(f"config: {path} = {value}: expected a number")
        if path in RANGES and isinstance(value, (int, float)) and not RANGES[path].holds(value):
            raise UserError(f"config: {path} = {value}: expected {RANGES[path].words}")
        choices = CHOICES.get(path, ())
        if path == "SOLVER.CLIP_GRADIENTS.CLIP_TYPE" and "MASK_FORMER" in cfg.MODEL:
            choices = (*choices, "full_model")
        if choices and value not in choices:
            hint = did_you_mean(value, choices) or f"use {', '.join(choices)}"
            raise UserError(f"config: {path} = {shown(value)}: there is no such choice; {hint}")
    _check_sizes(cfg)
    _check_format(cfg)
    _check_device(cfg.MODEL.DEVICE)
    check_relations(cfg)


def _check_sizes(cfg: CfgNode) -> None:
    for key in ("MIN_SIZE_TRAIN", "MAX_SIZE_TRAIN", "MIN_SIZE_TEST", "MAX_SIZE_TEST"):
        value = cfg.INPUT[key]
        sizes = value if isinstance(value, (list, tuple)) else (value,)
        least = 0 if key == "MIN_SIZE_TEST" else 1  # 0 leaves images as they are
        if not sizes or any(not isinstance(each, int) or each < least for each in sizes):
            raise UserError(f"config: INPUT.{key} = {shown(value)}: expected whole numbers of pixels, {least} or more")


def _check_format(cfg: CfgNode) -> None:
    from PIL import Image

    name = cfg.INPUT.FORMAT
    try:
        image = convert_PIL_to_numpy(Image.new("RGB", (2, 2)), name)
    except (ValueError, KeyError, AttributeError) as error:
        hint = did_you_mean(name, FORMATS) or f"use {', '.join(FORMATS)}"
        raise UserError(f"config: INPUT.FORMAT = {shown(name)}: no image has this format; {hint}") from error
    channels = image.shape[2] if image.ndim == 3 else 1
    for key in ("PIXEL_MEAN", "PIXEL_STD"):
        if len(cfg.MODEL[key]) != channels:
            raise UserError(
                f"config: MODEL.{key} has {len(cfg.MODEL[key])} numbers, but images of INPUT.FORMAT = {name} have "
                f"{channels} channels"
            )


def _check_device(name: str) -> None:
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # which the device of no numbers, meta, has none of
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"config: MODEL.DEVICE = {name!r} cannot be used here ({reason}); use cuda or cpu") from error


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value by its path; those in lists too, each by its number."""
    if isinstance(node, CfgNode):
        for key, child in node.items():
            yield from _leaves(child, f"{path}.{key}" if path else str(key))
        return
    yield path, node
    for number, child in enumerate(node) if isinstance(node, (list, tuple)) else ():
        yield from _leaves(child, f"{path}[{number}]")
