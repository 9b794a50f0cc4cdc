"""The original Mask2Former with core losses and finite matching costs.

Importing this imports the project, see :mod:`cvplugins.detectron2.mask2former.checkout`.
"""

from __future__ import annotations

import logging
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

from cvplugins.detectron2.models.head_losses import configured

from .checkout import has_cuda_op, import_mask2former
from .criterion import CvpluginsCriterion
from .matcher import CvpluginsMatcher

import_mask2former()
from mask2former.maskformer_model import MaskFormer  # noqa: E402 - found by the line above

__all__ = ["CvpluginsMaskFormer"]

logger = logging.getLogger(__name__)


@META_ARCH_REGISTRY.register()
class CvpluginsMaskFormer(MaskFormer):
    """MaskFormer with the losses ``M2F_CLS``, ``M2F_MASK`` and ``M2F_DICE`` of ``cfg.CVPLUGINS.LOSSES``.

    Each takes the place of one of the original's, in the last decoder layer and in all before it, under its name
    (``loss_ce``, ``loss_mask``, ``loss_dice``) and with its weight (``MODEL.MASK_FORMER.CLASS_WEIGHT``,
    ``MASK_WEIGHT``, ``DICE_WEIGHT``): MaskFormer drops losses of other names without a word. Points, matching and
    normalisers stay the original's. With empty entries nothing changes.

    Example::

        MODEL: {META_ARCHITECTURE: CvpluginsMaskFormer}
        CVPLUGINS: {LOSSES: {M2F_MASK: {type: FocalLoss, use_sigmoid: True, alpha: 0.25, loss_weight: 4.0}}}
    """

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments that a config stands for."""
        if not has_cuda_op():
            logger.info(
                "Mask2Former's CUDA op is not compiled: cvplugins computes its deformable attention, "
                "on a GPU with Triton (docs/mask2former.md)"
            )
        options = super().from_config(cfg)
        options["criterion"] = CvpluginsCriterion.like(
            options["criterion"],
            CvpluginsMatcher.like(options["criterion"].matcher, cfg.CVPLUGINS.MASK2FORMER),
            cls_loss=configured(cfg, "M2F_CLS"),
            mask_loss=configured(cfg, "M2F_MASK"),
            dice_loss=configured(cfg, "M2F_DICE"),
        )
        return options
