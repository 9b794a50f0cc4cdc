"""Losses: pure functions and the modules that store their options.

``LOSSES`` lists every module; the adapters of OpenMMLab and Detectron2 register what stands here.
"""

from .box_iou import BoxIoULoss, box_iou_loss, xywh_to_xyxy
from .focal import FocalLoss, sigmoid_focal_loss, softmax_focal_loss
from .reduction import reduce_loss
from .regression import L1Loss, SmoothL1Loss, l1_loss, smooth_l1_loss

LOSSES = (BoxIoULoss, FocalLoss, L1Loss, SmoothL1Loss)

__all__ = [
    "LOSSES",
    "BoxIoULoss",
    "FocalLoss",
    "L1Loss",
    "SmoothL1Loss",
    "box_iou_loss",
    "l1_loss",
    "reduce_loss",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
    "softmax_focal_loss",
    "xywh_to_xyxy",
]
