"""Operators of detectors and segmenters on torchvision's prebuilt kernels and torch: nothing is compiled."""

from .carafe import carafe, carafe_backward
from .deform_conv import ConvGeometry, DeformConv2dGradients, deform_conv2d, deform_conv2d_backward
from .masked_conv import columns_to_pixels, patches_at
from .psa_mask import psa_collect, psa_collect_backward, psa_distribute, psa_distribute_backward

__all__ = [
    "ConvGeometry",
    "DeformConv2dGradients",
    "carafe",
    "carafe_backward",
    "columns_to_pixels",
    "deform_conv2d",
    "deform_conv2d_backward",
    "patches_at",
    "psa_collect",
    "psa_collect_backward",
    "psa_distribute",
    "psa_distribute_backward",
]
