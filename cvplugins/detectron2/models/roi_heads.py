"""Box heads that take core losses, for FPN, C4 and Cascade R-CNN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling.roi_heads import (
    ROI_HEADS_REGISTRY,
    CascadeROIHeads,
    FastRCNNOutputLayers,
    Res5ROIHeads,
    StandardROIHeads,
)
from detectron2.structures import Instances
from torch import Tensor, nn

from cvplugins.errors import UserError

from .head_losses import configured, logged
from .losses import BoxLoss, ClassLoss

__all__ = [
    "CvpluginsCascadeROIHeads",
    "CvpluginsFastRCNNOutputLayers",
    "CvpluginsRes5ROIHeads",
    "CvpluginsStandardROIHeads",
]


class CvpluginsFastRCNNOutputLayers(FastRCNNOutputLayers):
    """Fast R-CNN's last layers with core losses.

    The layers are those of Detectron2, and so are the checkpoints: with a loss of sigmoids the column of the background
    stays and is not used, as Detectron2 itself does with ``USE_SIGMOID_CE``.

    Args:
        args: What ``FastRCNNOutputLayers`` takes.
        cls_loss: Loss of the classes, a module of the core or its config; Detectron2's own if empty.
        box_loss: Loss of the boxes, likewise.
        options: What ``FastRCNNOutputLayers`` takes.

    Raises:
        UserError: A loss that does not fit, or ``use_sigmoid_ce`` beside ``cls_loss``.

    Example:
        In a LazyConfig::

            model.roi_heads.box_predictor = L(CvpluginsFastRCNNOutputLayers)(
                ..., cls_loss=L(FocalLoss)(gamma=2.0), box_loss=L(BoxIoULoss)(kind="ciou")
            )
    """

    @configurable
    def __init__(
        self,
        *args: Any,
        cls_loss: nn.Module | Mapping[str, Any] | None = None,
        box_loss: nn.Module | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.cls_loss = ClassLoss.of(cls_loss)
        self.box_loss = BoxLoss.of(box_loss)
        if self.cls_loss is not None and self.use_sigmoid_ce:
            raise UserError("use_sigmoid_ce names another loss than cls_loss; set it to False")

    @classmethod
    def from_config(cls, cfg: Any, input_shape: ShapeSpec) -> dict[str, Any]:
        """Return the arguments that a config stands for."""
        losses = {"cls_loss": configured(cfg, "CLS"), "box_loss": configured(cfg, "BOX_REG")}
        return {**super().from_config(cfg, input_shape), **losses}

    def losses(self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]) -> dict[str, Tensor]:
        """Return Detectron2's losses, or ours in their place."""
        if self.cls_loss is None:
            return super().losses(predictions, proposals)
        scores, deltas = predictions
        losses = super().losses((scores.detach(), deltas), proposals)  # logs the accuracy, and calls box_reg_loss
        labels = cat([each.gt_classes for each in proposals]) if proposals else scores.new_empty(0)
        columns = scores[:, : self.num_classes] if self.cls_loss.use_sigmoid else scores
        loss = logged("loss_cls", self.cls_loss, columns, labels, max(len(labels), 1))
        return {**losses, "loss_cls": loss * self.loss_weight.get("loss_cls", 1.0)}

    def box_reg_loss(self, proposal_boxes: Tensor, gt_boxes: Tensor, pred_deltas: Tensor, gt_classes: Tensor) -> Tensor:
        """Return the loss of the foreground, over the number of all proposals as Detectron2 does."""
        if self.box_loss is None:
            return super().box_reg_loss(proposal_boxes, gt_boxes, pred_deltas, gt_classes)
        foreground = ((gt_classes >= 0) & (gt_classes < self.num_classes)).nonzero().squeeze(1)
        deltas = pred_deltas[foreground]
        if deltas.shape[1] > 4:  # one box per class
            of_class = gt_classes[foreground].long()
            deltas = deltas.view(-1, self.num_classes, 4)[torch.arange(len(deltas), device=deltas.device), of_class]
        return logged(
            "loss_box_reg",
            self.box_loss,
            deltas,
            proposal_boxes[foreground],
            gt_boxes[foreground],
            self.box2box_transform,
            max(len(gt_classes), 1),
        )

    def predict_probs(self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]) -> tuple[Tensor, ...]:
        """Return the scores as the loss reads them, by sigmoids or by a softmax."""
        if self.cls_loss is None or not self.cls_loss.use_sigmoid:
            return super().predict_probs(predictions, proposals)
        return predictions[0].sigmoid().split([len(each) for each in proposals])


def _with_core_losses(cfg: Any, predictor: FastRCNNOutputLayers) -> CvpluginsFastRCNNOutputLayers:
    """Return what takes the place of Detectron2's layers, which its heads build without asking."""
    shape = ShapeSpec(channels=predictor.cls_score.in_features)
    return CvpluginsFastRCNNOutputLayers(cfg, shape, box2box_transform=predictor.box2box_transform)


@ROI_HEADS_REGISTRY.register()
class CvpluginsStandardROIHeads(StandardROIHeads):
    """StandardROIHeads with the losses ``CLS`` and ``BOX_REG`` of ``cfg.CVPLUGINS.LOSSES``."""

    @classmethod
    def _init_box_head(cls, cfg: Any, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        parts = super()._init_box_head(cfg, input_shape)
        return {**parts, "box_predictor": _with_core_losses(cfg, parts["box_predictor"])}


@ROI_HEADS_REGISTRY.register()
class CvpluginsRes5ROIHeads(Res5ROIHeads):
    """Res5ROIHeads, those of C4, with the losses ``CLS`` and ``BOX_REG`` of ``cfg.CVPLUGINS.LOSSES``."""

    @classmethod
    def from_config(cls, cfg: Any, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        """Return the arguments that a config stands for."""
        parts = super().from_config(cfg, input_shape)
        return {**parts, "box_predictor": _with_core_losses(cfg, parts["box_predictor"])}


@ROI_HEADS_REGISTRY.register()
class CvpluginsCascadeROIHeads(CascadeROIHeads):
    """CascadeROIHeads with the losses ``CLS`` and ``BOX_REG`` of ``cfg.CVPLUGINS.LOSSES`` in every stage."""

    @classmethod
    def _init_box_head(cls, cfg: Any, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        parts = super()._init_box_head(cfg, input_shape)
        return {**parts, "box_predictors": [_with_core_losses(cfg, each) for each in parts["box_predictors"]]}
