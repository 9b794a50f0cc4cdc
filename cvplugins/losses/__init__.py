"""Losses: pure functions and the modules that store their options.

``LOSSES`` lists every module; the adapters of OpenMMLab and Detectron2 register what stands here.
"""

from .box_iou import BoxIoULoss, box_iou_loss, xywh_to_xyxy
from .contrastive import (
    ContrastiveLoss,
    InfoNCELoss,
    SupConLoss,
    contrastive_loss,
    info_nce_loss,
    supcon_loss,
)
from .cosine import CosineSimilarityLoss, cosine_similarity_loss
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
from .structural_similarity import MSSSIMLoss, SSIMLoss, ms_ssim_loss, ssim_loss
from .triplet import TripletLoss, triplet_loss

LOSSES = (
    BCELoss,
    BoxIoULoss,
    CharbonnierLoss,
    ContrastiveLoss,
    CosineSimilarityLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    FocalTverskyLoss,
    GeneralizedDiceLoss,
    InfoNCELoss,
    IoULoss,
    L1Loss,
    L2Loss,
    LovaszLoss,
    MSSSIMLoss,
    SSIMLoss,
    SmoothL1Loss,
    SupConLoss,
    TripletLoss,
    TverskyLoss,
)

__all__ = [
    "LOSSES",
    "BCELoss",
    "BoxIoULoss",
    "CharbonnierLoss",
    "ContrastiveLoss",
    "CosineSimilarityLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "FocalLoss",
    "FocalTverskyLoss",
    "GeneralizedDiceLoss",
    "InfoNCELoss",
    "IoULoss",
    "L1Loss",
    "L2Loss",
    "LovaszLoss",
    "MSSSIMLoss",
    "SSIMLoss",
    "SmoothL1Loss",
    "SupConLoss",
    "TripletLoss",
    "TverskyLoss",
    "binary_cross_entropy",
    "box_iou_loss",
    "charbonnier_loss",
    "contrastive_loss",
    "cosine_similarity_loss",
    "cross_entropy",
    "generalized_dice_loss",
    "info_nce_loss",
    "l1_loss",
    "l2_loss",
    "lovasz_hinge_loss",
    "lovasz_softmax_loss",
    "ms_ssim_loss",
    "reduce_loss",
    "region_sums",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
    "softmax_focal_loss",
    "ssim_loss",
    "supcon_loss",
    "triplet_loss",
    "tversky_loss",
    "xywh_to_xyxy",
]
