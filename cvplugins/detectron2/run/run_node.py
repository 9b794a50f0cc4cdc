"""The keys of a run in ``cfg.CVPLUGINS``: its data, its training and its evaluators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from detectron2.config import CfgNode

from cvplugins.errors import UserError
from cvplugins.options import check_options

__all__ = ["EVALUATORS", "add_run_config", "optimizer_options", "validate_run_config"]

# By name: the module is imported when one is built.
EVALUATORS = (
    "CvpluginsDetectionEvaluator",
    "CvpluginsInstanceSegmentationEvaluator",
    "CvpluginsSegmentationEvaluator",
)


def add_run_config(node: CfgNode) -> None:
    """Add ``DATA``, ``TRAIN`` and ``EVALUATORS`` to ``cfg.CVPLUGINS``; see the comments for what they mean."""
    node.DATA = CfgNode()
    # The folder VOCdevkit of the datasets cvplugins_voc_*, or ADEChallengeData2016 of cvplugins_ade20k_*. If empty,
    # $DETECTRON2_DATASETS or its folder ADEChallengeData2016; where that is not set, data/ has both.
    node.DATA.ROOT = ""
    # Names of the classes in it; PASCAL VOC's 20, or ADE20K's 150, if empty.
    node.DATA.CLASSES = []
    # Whether training sees difficult objects as any others, as Detectron2 does; mmdet ignores them. Tests never count
    # them.
    node.DATA.DIFFICULT = True
    # Leave broken images and annotations out instead of stopping at them.
    node.DATA.SKIP_BROKEN = False

    node.TRAIN = CfgNode()
    # Batches of SOLVER.IMS_PER_BATCH images for each step of the optimizer. An iteration stays one such step.
    node.TRAIN.ACCUMULATE = 1
    # Images in a step that SOLVER.BASE_LR is meant for; --auto-scale-lr scales it to those that there are.
    node.TRAIN.BASE_BATCH_SIZE = 0
    # A class of torch.optim and its options; SOLVER.BASE_LR and the WEIGHT_DECAYs hold for it too. Detectron2's SGD if
    # the type is empty. Mask2Former has its own, SOLVER.OPTIMIZER: ADAMW or SGD.
    node.TRAIN.OPTIMIZER = CfgNode({"type": ""}, new_allowed=True)

    # Dicts such as {type: CvpluginsDetectionEvaluator, rules: [detectron2]}; chosen by the dataset if empty.
    node.EVALUATORS = []


def validate_run_config(node: CfgNode) -> None:
    """Find mistakes before any work.

    Args:
        node: ``cfg.CVPLUGINS``.

    Raises:
        UserError: What is wrong, and what is accepted.
    """
    if node.TRAIN.ACCUMULATE < 1:
        raise UserError(f"CVPLUGINS.TRAIN.ACCUMULATE is {node.TRAIN.ACCUMULATE}; it must be at least 1")
    _check_optimizer(node.TRAIN.OPTIMIZER)
    for index, entry in enumerate(node.EVALUATORS):
        try:
            _check_evaluator(entry)
        except UserError as error:
            raise UserError(f"CVPLUGINS.EVALUATORS[{index}]: {error}") from error


def optimizer_options(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an optimizer: all that is given but ``type``."""
    return {name: value for name, value in node.items() if name != "type" and value is not None}


def _check_optimizer(node: CfgNode) -> None:
    options = optimizer_options(node)
    where = "CVPLUGINS.TRAIN.OPTIMIZER"
    if not node.type:
        if options:
            raise UserError(f"{where}: {', '.join(options)} without a type, such as AdamW")
        return
    kind = getattr(torch.optim, node.type, None)
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        raise UserError(f"{where}: torch.optim has no {node.type!r}; use one of its classes, such as AdamW, Adam, SGD")
    if taken := {"lr": "SOLVER.BASE_LR", "weight_decay": "SOLVER.WEIGHT_DECAY"}.keys() & options:
        raise UserError(f"{where}: {', '.join(sorted(taken))} is set by SOLVER.BASE_LR and SOLVER.WEIGHT_DECAY")
    build: Callable[..., torch.optim.Optimizer] = kind
    try:
        build([torch.nn.Parameter(torch.zeros(1))], lr=0.1, weight_decay=0.0, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}") from error


def _check_evaluator(entry: Any) -> None:
    if not isinstance(entry, Mapping) or not entry.get("type"):
        raise UserError(f"expected a dict with a type, such as {{type: {EVALUATORS[0]}}}, but got {entry!r}")
    name = entry["type"].removeprefix("cvplugins.")
    if name not in EVALUATORS:
        raise UserError(f"no evaluator {name!r}; use {', '.join(EVALUATORS)}")
    from cvplugins.detectron2.metrics import evaluators

    options = {each: value for each, value in entry.items() if each != "type"}
    check_options(getattr(evaluators, name), {"dataset_name": "", **options}, name)
