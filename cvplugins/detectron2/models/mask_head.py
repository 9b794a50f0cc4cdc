"""Mask R-CNN's mask head with a core loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling.roi_heads import ROI_MASK_HEAD_REGISTRY, MaskRCNNConvUpsampleHead
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_loss
from detectron2.structures import Instances
from torch import Tensor, nn

from .head_losses import configured, logged
from .losses import MaskLoss

__all__ = ["CvpluginsMaskRCNNConvUpsampleHead"]


@ROI_MASK_HEAD_REGISTRY.register()
class CvpluginsMaskRCNNConvUpsampleHead(MaskRCNNConvUpsampleHead):
    """MaskRCNNConvUpsampleHead with the loss ``MASK`` of ``cfg.CVPLUGINS.LOSSES``.

    Args:
        args: What ``MaskRCNNConvUpsampleHead`` takes.
        mask_loss: Loss of the masks, a module of the core or its config; Detectron2's own if empty.
        options: What ``MaskRCNNConvUpsampleHead`` takes.

    Example:
        In a LazyConfig::

            model.roi_heads.mask_head._target_ = CvpluginsMaskRCNNConvUpsampleHead
            model.roi_heads.mask_head.mask_loss = L(DiceLoss)(mode="binary")
    """

    @configurable
    def __init__(self, *args: Any, mask_loss: nn.Module | Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.mask_loss = MaskLoss.of(mask_loss)

    @classmethod
    def from_config(cls, cfg: Any, input_shape: ShapeSpec) -> dict[str, Any]:
        """Return the arguments that a config stands for."""
        return {**super().from_config(cfg, input_shape), "mask_loss": configured(cfg, "MASK")}

    def layers(self, x: Tensor) -> Tensor:
        """Return the scores; the loss is no layer, though the head is an ``nn.Sequential``."""
        for layer in self:
            if layer is not self.mask_loss:
                x = layer(x)
        return x

    def forward(self, x: Tensor, instances: list[Instances]) -> Any:
        """Return the loss in training, else the instances with their masks."""
        if not self.training or self.mask_loss is None:
            return super().forward(x, instances)
        logits = self.layers(x)
        cropped = [_with_cropped_masks(each, logits) for each in instances if len(each)]
        if not cropped:
            return {"loss_mask": logits.sum() * 0}
        mask_rcnn_loss(logits.detach(), cropped, self.vis_period)  # logs the accuracy
        masks = cat([each.gt_masks.masks for each in cropped]).to(torch.float32)
        of_class = 0 if logits.shape[1] == 1 else cat([each.gt_classes for each in cropped]).long()
        scores = logits[torch.arange(len(logits), device=logits.device), of_class]
        return {"loss_mask": logged("loss_mask", self.mask_loss, scores, masks) * self.loss_weight}


class _CroppedMasks:
    """True masks within their boxes, drawn once for Detectron2's function, which would draw them again, and for us."""

    def __init__(self, masks: Tensor) -> None:
        self.masks = masks

    def __len__(self) -> int:
        return len(self.masks)

    def crop_and_resize(self, boxes: Tensor, size: int) -> Tensor:
        """Return the masks."""
        return self.masks


def _with_cropped_masks(instances: Instances, logits: Tensor) -> Instances:
    cropped = instances.gt_masks.crop_and_resize(instances.proposal_boxes.tensor, logits.shape[-1]).to(logits.device)
    return Instances(
        instances.image_size,
        gt_classes=instances.gt_classes,
        proposal_boxes=instances.proposal_boxes,
        gt_masks=_CroppedMasks(cropped),
    )
