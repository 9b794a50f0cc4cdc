"""Losses: pure functions and the modules that store their options.

``LOSSES`` lists every module; the adapters of OpenMMLab and Detectron2 register what stands here.
"""

from .box_iou import BoxIoULoss, box_iou_loss, xywh_to_xyxy
from .composite import CompositeLoss, scheduled_weight, uncertainty_weighted
from .cross_entropy import BCELoss, CrossEntropyLoss, binary_cross_entropy, cross_entropy
from .focal import FocalLoss, sigmoid_focal_loss, softmax_focal_loss
from .lovasz import LovaszLoss, lovasz_hinge_loss, lovasz_softmax_loss
from .reduction import reduce_loss
from .region import (
    DiceLoss,
    FocalTverskyLoss,
    GeneralizedDiceLoss,
    IoULoss,
    TverskyLoss,
    generalized_dice_loss,
    region_sums,
    tversky_loss,
)
from .regression import (
    CharbonnierLoss,
    L1Loss,
    L2Loss,
    SmoothL1Loss,
    charbonnier_loss,
    l1_loss,
    l2_loss,
    smooth_l1_loss,
)
from .weight_penalty import WeightPenalty, weight_penalty

LOSSES = (
    BCELoss,
    BoxIoULoss,
    CharbonnierLoss,
    CompositeLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    FocalTverskyLoss,
    GeneralizedDiceLoss,
    IoULoss,
    L1Loss,
    L2Loss,
    LovaszLoss,
    SmoothL1Loss,
    TverskyLoss,
)

__all__ = [
    "LOSSES",
    "BCELoss",
    "BoxIoULoss",
    "CharbonnierLoss",
    "CompositeLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "FocalLoss",
    "FocalTverskyLoss",
    "GeneralizedDiceLoss",
    "IoULoss",
    "L1Loss",
    "L2Loss",
    "LovaszLoss",
    "SmoothL1Loss",
    "TverskyLoss",
    "WeightPenalty",
    "binary_cross_entropy",
    "box_iou_loss",
    "charbonnier_loss",
    "cross_entropy",
    "generalized_dice_loss",
    "l1_loss",
    "l2_loss",
    "lovasz_hinge_loss",
    "lovasz_softmax_loss",
    "reduce_loss",
    "region_sums",
    "scheduled_weight",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
    "softmax_focal_loss",
    "tversky_loss",
    "uncertainty_weighted",
    "weight_penalty",
    "xywh_to_xyxy",
]
