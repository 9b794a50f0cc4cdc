"""Losses: pure functions and the modules that store their options.

``LOSSES`` lists every module; the adapters of OpenMMLab and Detectron2 register what stands here.
"""

from .adaptive_softmax import AdaptiveSoftmaxLoss, adaptive_softmax_loss
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
from .class_sampling import ByFrequency, LogUniform, Uniform
from .composite import CompositeLoss, scheduled_weight, uncertainty_weighted
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
from .distance import DistanceCache, distance_transform, signed_distance_maps
from .focal import FocalLoss, sigmoid_focal_loss, softmax_focal_loss
from .from_config import build_loss
from .gan import GANLoss, discriminator_loss, generator_loss, gradient_penalty, r1_penalty
from .lovasz import LovaszLoss, lovasz_hinge_loss, lovasz_softmax_loss
from .ohem import OHEMLoss, hardest, hardest_negatives
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
from .sampled_softmax import SampledSoftmaxLoss, sampled_softmax_loss
from .structural_similarity import MSSSIMLoss, SSIMLoss, ms_ssim_loss, ssim_loss
from .triplet import TripletLoss, triplet_loss
from .weight_penalty import WeightPenalty, weight_penalty

LOSSES = (
    AdaptiveSoftmaxLoss,
    BCELoss,
    BoundaryCrossEntropyLoss,
    BoundaryLoss,
    BoxIoULoss,
    CharbonnierLoss,
    CompositeLoss,
    ContrastiveLoss,
    CosineSimilarityLoss,
    CrossEntropyLoss,
    DiceLoss,
    FeatureMatchingLoss,
    FocalLoss,
    FocalTverskyLoss,
    GANLoss,
    GeneralizedDiceLoss,
    InfoNCELoss,
    HausdorffLoss,
    IoULoss,
    L1Loss,
    L2Loss,
    LovaszLoss,
    MSSSIMLoss,
    OHEMLoss,
    PerceptualLoss,
    SampledSoftmaxLoss,
    SmoothL1Loss,
    SSIMLoss,
    StyleLoss,
    SupConLoss,
    TripletLoss,
    TverskyLoss,
)

__all__ = [
    "LOSSES",
    "AdaptiveSoftmaxLoss",
    "BCELoss",
    "BoundaryCrossEntropyLoss",
    "BoundaryLoss",
    "BoxIoULoss",
    "ByFrequency",
    "CharbonnierLoss",
    "CompositeLoss",
    "ContrastiveLoss",
    "CosineSimilarityLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "DistanceCache",
    "FeatureMatchingLoss",
    "FocalLoss",
    "FocalTverskyLoss",
    "GANLoss",
    "GeneralizedDiceLoss",
    "HausdorffLoss",
    "InfoNCELoss",
    "IoULoss",
    "L1Loss",
    "L2Loss",
    "LogUniform",
    "LovaszLoss",
    "MSSSIMLoss",
    "OHEMLoss",
    "PerceptualLoss",
    "SSIMLoss",
    "SampledSoftmaxLoss",
    "SmoothL1Loss",
    "StyleLoss",
    "SupConLoss",
    "TripletLoss",
    "TverskyLoss",
    "Uniform",
    "WeightPenalty",
    "adaptive_softmax_loss",
    "binary_cross_entropy",
    "boundary_cross_entropy",
    "boundary_loss",
    "boundary_weights",
    "box_iou_loss",
    "build_loss",
    "charbonnier_loss",
    "contrastive_loss",
    "cosine_similarity_loss",
    "cross_entropy",
    "discriminator_loss",
    "distance_transform",
    "feature_matching_loss",
    "generalized_dice_loss",
    "generator_loss",
    "gradient_penalty",
    "gram_matrix",
    "hardest",
    "hardest_negatives",
    "hausdorff_loss",
    "info_nce_loss",
    "l1_loss",
    "l2_loss",
    "lovasz_hinge_loss",
    "lovasz_softmax_loss",
    "ms_ssim_loss",
    "perceptual_loss",
    "r1_penalty",
    "reduce_loss",
    "region_sums",
    "sampled_softmax_loss",
    "scheduled_weight",
    "sigmoid_focal_loss",
    "signed_distance_maps",
    "smooth_l1_loss",
    "softmax_focal_loss",
    "ssim_loss",
    "style_loss",
    "supcon_loss",
    "triplet_loss",
    "tversky_loss",
    "uncertainty_weighted",
    "weight_penalty",
    "xywh_to_xyxy",
]
