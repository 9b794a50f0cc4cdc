"""Losses: pure functions and the modules that store their options.

``LOSSES`` lists every module; the adapters of OpenMMLab and Detectron2 register what stands here.
"""

from .boundary import (
    BoundaryCrossEntropyLoss,
    BoundaryLoss,
    HausdorffLoss,
    boundary_cross_entropy,
    boundary_loss,
    boundary_weights,
    hausdorff_loss,
)
from .box_iou import BoxIoULoss, box_iou_loss, xywh_to_xyxy
from .cross_entropy import BCELoss, CrossEntropyLoss, binary_cross_entropy, cross_entropy
from .distance import DistanceCache, distance_transform, signed_distance_maps
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

LOSSES = (
    BCELoss,
    BoundaryCrossEntropyLoss,
    BoundaryLoss,
    BoxIoULoss,
    CharbonnierLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    FocalTverskyLoss,
    GeneralizedDiceLoss,
    HausdorffLoss,
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
    "BoundaryCrossEntropyLoss",
    "BoundaryLoss",
    "BoxIoULoss",
    "CharbonnierLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "DistanceCache",
    "FocalLoss",
    "FocalTverskyLoss",
    "GeneralizedDiceLoss",
    "HausdorffLoss",
    "IoULoss",
    "L1Loss",
    "L2Loss",
    "LovaszLoss",
    "SmoothL1Loss",
    "TverskyLoss",
    "binary_cross_entropy",
    "boundary_cross_entropy",
    "boundary_loss",
    "boundary_weights",
    "box_iou_loss",
    "charbonnier_loss",
    "cross_entropy",
    "distance_transform",
    "generalized_dice_loss",
    "hausdorff_loss",
    "l1_loss",
    "l2_loss",
    "lovasz_hinge_loss",
    "lovasz_softmax_loss",
    "reduce_loss",
    "region_sums",
    "sigmoid_focal_loss",
    "signed_distance_maps",
    "smooth_l1_loss",
    "softmax_focal_loss",
    "tversky_loss",
    "xywh_to_xyxy",
]
