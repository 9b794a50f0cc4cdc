"""A region proposal network that takes core losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.proposal_generator.build import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import Boxes
from torch import Tensor, nn

from .head_losses import configured, dense_box_loss, detached, logged
from .losses import BoxLoss, ObjectnessLoss

__all__ = ["CvpluginsRPN"]


@PROPOSAL_GENERATOR_REGISTRY.register()
class CvpluginsRPN(RPN):
    """RPN with the losses ``RPN_CLS`` and ``RPN_LOC`` of ``cfg.CVPLUGINS.LOSSES``.

    Both are divided by the number of sampled anchors, as in Detectron2.

    Args:
        cls_loss: Loss of the objectness, a module of the core or its config; Detectron2's own if empty.
        box_loss: Loss of the boxes, likewise.
        options: What ``RPN`` takes.

    Example:
        In a LazyConfig::

            model.proposal_generator._target_ = CvpluginsRPN
            model.proposal_generator.box_loss = L(BoxIoULoss)(kind="giou")
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
        self.cls_loss = ObjectnessLoss.of(cls_loss)
        self.box_loss = BoxLoss.of(box_loss)

    @classmethod
    def from_config(cls, cfg: Any, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        """Return the arguments that a config stands for."""
        losses = {"cls_loss": configured(cfg, "RPN_CLS"), "box_loss": configured(cfg, "RPN_LOC")}
        return {**super().from_config(cfg, input_shape), **losses}

    @torch.jit.unused
    def losses(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """Return Detectron2's losses, or ours in their place."""
        losses = super().losses(  # also logs the number of anchors
            anchors,
            pred_objectness_logits if self.cls_loss is None else detached(pred_objectness_logits),
            gt_labels,
            pred_anchor_deltas if self.box_loss is None else detached(pred_anchor_deltas),
            gt_boxes,
        )
        labels = torch.stack(gt_labels)
        divisor = self.batch_size_per_image * len(gt_labels)
        ours = {}
        if self.cls_loss is not None:
            sampled = labels >= 0
            scores = cat(pred_objectness_logits, dim=1)[sampled]
            ours["loss_rpn_cls"] = logged("loss_rpn_cls", self.cls_loss, scores, labels[sampled], divisor)
        if self.box_loss is not None:
            ours["loss_rpn_loc"] = dense_box_loss(
                "loss_rpn_loc",
                self.box_loss,
                anchors,
                pred_anchor_deltas,
                gt_boxes,
                labels == 1,
                self.box2box_transform,
                divisor,
            )
        return {**losses, **{name: loss * self.loss_weight.get(name, 1.0) for name, loss in ours.items()}}
