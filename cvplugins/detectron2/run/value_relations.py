"""Values that are wrong because of others beside them, where Detectron2 trains on in silence or blames another key."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from detectron2.config import CfgNode

from cvplugins.detectron2.mask2former.config import is_mask2former
from cvplugins.errors import UserError
from cvplugins.refusals import shown

__all__ = ["check_relations"]

# Detectron2's keys, and Mask2Former's.
LOSS_WEIGHTS = ("LOSS_WEIGHT", "CLASS_WEIGHT", "DICE_WEIGHT", "MASK_WEIGHT", "NO_OBJECT_WEIGHT")


def check_relations(cfg: CfgNode) -> None:
    """Raise ``UserError`` for a value that Detectron2 would take, and train or test wrongly with."""
    _check_schedule(cfg)
    _check_momentum(cfg)
    _check_short_edges(cfg)
    _check_crop(cfg)
    for key in ("RPN", "ROI_HEADS", "RETINANET"):
        _check_matcher(cfg, key)
    _check_anchors(cfg)
    for path, weights in _numbers_below(cfg.MODEL, "BBOX_REG_WEIGHTS", "MODEL"):
        if any(each == 0 or not math.isfinite(each) for each in weights):
            raise _refusal(path, weights, "predicted boxes are divided by these numbers, none of which may be 0")
    for path, weights in _numbers_below(cfg.MODEL, LOSS_WEIGHTS, "MODEL"):
        if any(each < 0 or not math.isfinite(each) for each in weights):
            raise _refusal(path, weights, "a loss of this weight would be made larger; expected 0 or more")
    if any(each == 0 for each in cfg.MODEL.PIXEL_STD):
        raise _refusal("MODEL.PIXEL_STD", cfg.MODEL.PIXEL_STD, "images are divided by these numbers")
    _check_detections(cfg)


def _check_schedule(cfg: CfgNode) -> None:
    """Look at what detectron2/solver/build.py hands to fvcore, which blames the number of decays."""
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        steps = [step for step in solver.STEPS if isinstance(step, (int, float)) and step <= solver.MAX_ITER]
        if any(after <= before for before, after in pairwise([0, *steps])):
            raise _refusal("SOLVER.STEPS", solver.STEPS, "expected iterations above 0, each after the one before")
        if solver.MAX_ITER in steps:  # of those beyond it Detectron2 says that they are ignored
            words = f"the run ends at SOLVER.MAX_ITER = {solver.MAX_ITER}, where no step is taken; leave it out"
            raise _refusal("SOLVER.STEPS", solver.STEPS, words)
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR" and not 0 <= solver.BASE_LR_END <= solver.BASE_LR:
        expected = f"expected 0 to SOLVER.BASE_LR = {solver.BASE_LR}"
        raise _refusal("SOLVER.BASE_LR_END", solver.BASE_LR_END, expected)


def _check_momentum(cfg: CfgNode) -> None:
    is_used = not cfg.CVPLUGINS.TRAIN.OPTIMIZER.type and not is_mask2former(cfg)
    if is_used and cfg.SOLVER.MOMENTUM >= 1:
        raise _refusal("SOLVER.MOMENTUM", cfg.SOLVER.MOMENTUM, "no gradient would ever be forgotten; expected below 1")


def _check_short_edges(cfg: CfgNode) -> None:
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING != "range":
        return
    sizes = cfg.INPUT.MIN_SIZE_TRAIN
    if len(sizes) != 2 or sizes[0] > sizes[1]:
        kind = "INPUT.MIN_SIZE_TRAIN_SAMPLING = 'range'"
        raise _refusal("INPUT.MIN_SIZE_TRAIN", sizes, f"{kind} needs the smallest and the largest size")


def _check_crop(cfg: CfgNode) -> None:
    crop = cfg.INPUT.CROP
    if not crop.ENABLED:
        return
    is_share = crop.TYPE.startswith("relative")
    # "relative_range" draws from the size to 1; "relative" takes it as it is.
    least = 0 if crop.TYPE == "relative_range" else 1e-12
    if is_share and not all(least <= each <= 1 for each in crop.SIZE):
        raise _refusal("INPUT.CROP.SIZE", crop.SIZE, f"INPUT.CROP.TYPE = {crop.TYPE!r} needs shares of 0 to 1")
    if not is_share and not all(each >= 1 for each in crop.SIZE):
        raise _refusal("INPUT.CROP.SIZE", crop.SIZE, f"INPUT.CROP.TYPE = {crop.TYPE!r} needs pixels, 1 or more")


def _check_matcher(cfg: CfgNode, key: str) -> None:
    """Look at thresholds and labels, of which the last is for the largest overlaps."""
    node, path = cfg.MODEL[key], f"MODEL.{key}"
    thresholds, labels = node.get("IOU_THRESHOLDS"), node.get("IOU_LABELS")
    if not thresholds or not labels:
        return
    if any(after < before for before, after in pairwise(thresholds)) or thresholds[0] <= 0:
        raise _refusal(f"{path}.IOU_THRESHOLDS", thresholds, "expected overlaps above 0, in ascending order")
    # The RPN and RetinaNet take the best anchor of an object, however small its overlap is.
    if key == "ROI_HEADS" and thresholds[-1] > 1:
        raise _refusal(f"{path}.IOU_THRESHOLDS", thresholds, "no overlap is above 1: nothing would be an object")
    if labels[-1] != 1 or any(before == 1 != after for before, after in pairwise(labels)):
        words = "the last label, of the largest overlaps, has to be 1 (object), those before 0, or -1 (passed over)"
        raise _refusal(f"{path}.IOU_LABELS", labels, words)


def _check_anchors(cfg: CfgNode) -> None:
    for key in ("SIZES", "ASPECT_RATIOS"):
        value = cfg.MODEL.ANCHOR_GENERATOR[key]
        if any(each <= 0 for each in _flat(value)):
            raise _refusal(f"MODEL.ANCHOR_GENERATOR.{key}", value, "expected numbers above 0")


def _check_detections(cfg: CfgNode) -> None:
    name = cfg.MODEL.META_ARCHITECTURE.removeprefix("Cvplugins")
    if cfg.TEST.DETECTIONS_PER_IMAGE < 0 and (name in ("RetinaNet", "FCOS") or is_mask2former(cfg)):
        words = f"{name} takes so many of the best, and knows no number for all; expected 1 or more"
        raise _refusal("TEST.DETECTIONS_PER_IMAGE", cfg.TEST.DETECTIONS_PER_IMAGE, words)


def _numbers_below(node: CfgNode, ending: str | tuple[str, ...], path: str) -> Iterator[tuple[str, list[float]]]:
    for name, value in node.items():
        if isinstance(value, CfgNode):
            yield from _numbers_below(value, ending, f"{path}.{name}")
        elif name.endswith(ending):
            yield f"{path}.{name}", list(_flat(value))


def _flat(value: Any) -> Iterator[float]:
    """Yield the numbers of nested lists; what is none is left to what is built from it."""
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from _flat(each)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value


def _refusal(path: str, value: Any, words: str) -> UserError:
    return UserError(f"config: {path} = {shown(value)}: {words}")
