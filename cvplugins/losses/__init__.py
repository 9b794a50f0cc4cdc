"""Losses: pure functions and the modules that store their options.

``LOSSES`` lists every module; the adapters of OpenMMLab and Detectron2 register what stands here.
"""

from .focal import FocalLoss, sigmoid_focal_loss, softmax_focal_loss
from .reduction import reduce_loss

LOSSES = (FocalLoss,)

__all__ = ["LOSSES", "FocalLoss", "reduce_loss", "sigmoid_focal_loss", "softmax_focal_loss"]
