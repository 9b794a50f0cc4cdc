"""Losses: pure functions and the modules that store their options.

``LOSSES`` lists every module; the adapters of OpenMMLab and Detectron2 register what stands here.
"""

from .box_iou import BoxIoULoss, box_iou_loss, xywh_to_xyxy
from .cross_entropy import BCELoss, CrossEntropyLoss, binary_cross_entropy, cross_entropy
from .focal import FocalLoss, sigmoid_focal_loss, softmax_focal_loss
from .gan import GANLoss, discriminator_loss, generator_loss, gradient_penalty, r1_penalty
from .lovasz import LovaszLoss, lovasz_hinge_loss, lovasz_softmax_loss
from .perceptual import (
    FeatureMatchingLoss,
    PerceptualLoss,
    StyleLoss,
    feature_matching_loss,
    gram_matrix,
    perceptual_loss,
    style_loss,
)
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
    BoxIoULoss,
    CharbonnierLoss,
    CrossEntropyLoss,
    DiceLoss,
    FeatureMatchingLoss,
    FocalLoss,
    FocalTverskyLoss,
    GANLoss,
    GeneralizedDiceLoss,
    IoULoss,
    L1Loss,
    L2Loss,
    LovaszLoss,
    PerceptualLoss,
    SmoothL1Loss,
    StyleLoss,
    TverskyLoss,
)

__all__ = [
    "LOSSES",
    "BCELoss",
    "BoxIoULoss",
    "CharbonnierLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "FeatureMatchingLoss",
    "FocalLoss",
    "FocalTverskyLoss",
    "GANLoss",
    "GeneralizedDiceLoss",
    "IoULoss",
    "L1Loss",
    "L2Loss",
    "LovaszLoss",
    "PerceptualLoss",
    "SmoothL1Loss",
    "StyleLoss",
    "TverskyLoss",
    "binary_cross_entropy",
    "box_iou_loss",
    "charbonnier_loss",
    "cross_entropy",
    "discriminator_loss",
    "feature_matching_loss",
    "generalized_dice_loss",
    "generator_loss",
    "gradient_penalty",
    "gram_matrix",
    "l1_loss",
    "l2_loss",
    "lovasz_hinge_loss",
    "lovasz_softmax_loss",
    "perceptual_loss",
    "r1_penalty",
    "reduce_loss",
    "region_sums",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
    "softmax_focal_loss",
    "style_loss",
    "tversky_loss",
    "xywh_to_xyxy",
]
