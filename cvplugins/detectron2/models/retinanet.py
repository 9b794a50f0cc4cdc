"""RetinaNet with core losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.layers import cat
from detectron2.modeling.meta_arch import META_ARCH_REGISTRY, RetinaNet
from detectron2.structures import Boxes
from torch import Tensor, nn

from .head_losses import configured, dense_box_loss, detached, logged
from .losses import BoxLoss, SigmoidClassLoss

__all__ = ["CvpluginsRetinaNet"]


@META_ARCH_REGISTRY.register()
class CvpluginsRetinaNet(RetinaNet):
    """RetinaNet with the losses ``CLS`` and ``BOX_REG`` of ``cfg.CVPLUGINS.LOSSES``.

    Both are divided by the moving average of the number of positive anchors, as in Detectron2. ``CLS`` has to be a loss
    of sigmoids.

    Args:
        cls_loss: Loss of the classes, a module of the core or its config; Detectron2's own if empty.
        box_loss: Loss of the boxes, likewise.
        options: What ``RetinaNet`` takes.

    Example:
        In a LazyConfig::

            model._target_ = CvpluginsRetinaNet
            model.box_loss = L(BoxIoULoss)(kind="giou")
    """

    @configurable
    def __init__(
        self,
        *,
        cls_loss: nn.Module | Mapping[str, Any] | None = None,
        box_loss: nn.Module | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.cls_loss = SigmoidClassLoss.of(cls_loss)
        self.box_loss = BoxLoss.of(box_loss)

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Return the arguments that a config stands for."""
        losses = {"cls_loss": configured(cfg, "CLS"), "box_loss": configured(cfg, "BOX_REG")}
        return {**super().from_config(cfg), **losses}

    def losses(
        self,
        anchors: list[Boxes],
        pred_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """Return Detectron2's losses, or ours in their place."""
        losses = super().losses(  # also counts the positive anchors
            anchors,
            pred_logits if self.cls_loss is None else detached(pred_logits),
            gt_labels,
            pred_anchor_deltas if self.box_loss is None else detached(pred_anchor_deltas),
            gt_boxes,
        )
        labels = torch.stack(gt_labels)
        divisor = self.loss_normalizer
        if self.cls_loss is not None:
            scores = cat(pred_logits, dim=1).flatten(0, 1)
            losses["loss_cls"] = logged("loss_cls", self.cls_loss, scores, labels.flatten(), divisor)
        if self.box_loss is not None:
            losses["loss_box_reg"] = dense_box_loss(
                "loss_box_reg",
                self.box_loss,
                anchors,
                pred_anchor_deltas,
                gt_boxes,
                (labels >= 0) & (labels != self.num_classes),
                self.box2box_transform,
                divisor,
            )
        return losses
