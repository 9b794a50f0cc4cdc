"""OpenMMLab's calling convention around the core losses, written once for all of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cvplugins.losses.contract import Loss, ignored_index, uses_sigmoid
from cvplugins.losses.from_config import OF_SIGMOIDS, check_loss_weight, checked_config, loss_of_options
from cvplugins.registry import MODELS

__all__ = ["CoreConvention", "OpenMMLabLoss", "core_arguments", "default_loss_name"]


class OpenMMLabLoss(nn.Module):
    """A core loss as mmdet and mmseg heads call it; no arithmetic but ``loss_weight``.

    Args:
        loss_weight: Factor of the loss.
        loss_name: Name in mmseg's log, beginning with ``loss_``; from the class if absent.
        use_mask: As of mmdet's CrossEntropyLoss, for the mask head of Mask R-CNN, which hands over masks of all classes
            ``(N, C, H, W)`` and the labels ``(N,)`` in place of ``weight``: the loss gets the masks of the labels.
        options: Options of the core loss. A config in their place (a dict with ``type``) is built first, in any
            scope: the loss of ``OHEMLoss`` or the backbone of ``PerceptualLoss``.
    """

    core: type[Loss]
    loss: Loss

    def __init__(
        self, loss_weight: float = 1.0, loss_name: str | None = None, use_mask: bool = False, **options: Any
    ) -> None:
        super().__init__()
        check_loss_weight(loss_weight, self.core.__name__)
        built = {name: value if name in ("loss", "losses") else _built(name, value) for name, value in options.items()}
        self.loss = loss_of_options(self.core, built, _part)
        self.use_mask = use_mask
        self.loss_weight = loss_weight
        self.loss_name = loss_name or default_loss_name(self.core)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        ignore_index: int | None = None,
        **more: Any,
    ) -> Tensor:
        """Translate OpenMMLab's arguments into the core's and scale the result; what is ``more`` is the core's own."""
        if self.use_mask:
            pred, weight = pred[torch.arange(len(pred), device=pred.device), weight], None
        call = core_arguments(pred, weight, avg_factor, reduction_override, ignore_index)
        return self.loss_weight * self.compute(pred, target, **call, **more)

    def compute(self, pred: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Call the core."""
        if "ignore_index" in call and self.loss.target_kind == "values":
            raise TypeError(
                f"{self.core.__name__} compares no labels, of which ignore_index={call['ignore_index']} could be one; "
                "it does not suit a head of classes"
            )
        pred, target = self.with_one_channel(pred, target)
        return self.loss(pred, target, **call)

    def with_one_channel(self, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return a map of one channel ``(N, 1, *)`` and its labels ``(N, *)`` in one shape; anything else as it is.

        mmseg's heads with ``out_channels=1`` call losses so, and 1 is the region that the channel scores. To the
        core the labels would be indices: 0 the class of the channel, 1 the background, as in mmdet's RPN, whose
        scores have no dimensions of pixels.
        """
        if self.loss.target_kind != "labels" or pred.ndim < 3 or pred.shape[1] != 1:  # no labels, or no such map
            return pred, target
        if target.shape != pred.shape[:1] + pred.shape[2:]:
            return pred, target
        if not self.use_sigmoid:
            raise ValueError(
                f"{self.core.__name__} compares classes and does not fit scores {tuple(pred.shape)} of one channel; "
                f"{OF_SIGMOIDS}"
            )
        if getattr(self.loss, "mode", None) == "multilabel":
            return pred, target.unsqueeze(1)
        return pred.squeeze(1), target

    # What mmdet's heads ask a classification loss for; DETR-like ones the first, BBoxHead the rest. With one
    # sigmoid per class there is no channel for the background, which BBoxHead otherwise adds.

    @property
    def use_sigmoid(self) -> bool:
        """Whether the scores are one sigmoid per class."""
        return uses_sigmoid(self.loss)

    custom_cls_channels = custom_activation = custom_accuracy = use_sigmoid

    def get_cls_channels(self, num_classes: int) -> int:
        """Return the number of channels of the classifier; some heads make one for the background all the same."""
        self.num_classes = num_classes
        return num_classes if self.use_sigmoid else num_classes + 1

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Return scores ``(N, num_classes + 1)``; the head drops the last column, the background."""
        scores = cls_score.sigmoid()
        if scores.shape[1] > getattr(self, "num_classes", scores.shape[1]):
            return scores
        return torch.cat([scores, scores.new_zeros(len(scores), 1)], dim=1)

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the accuracy in per cent on samples that are not background."""
        from mmdet.models.losses import accuracy

        positive = labels < cls_score.shape[1]
        return {"acc": accuracy(cls_score[positive], labels[positive])}


def core_arguments(
    pred: Tensor,
    weight: Tensor | None = None,
    avg_factor: float | Tensor | None = None,
    reduction_override: str | None = None,
    ignore_index: int | None = None,
) -> dict[str, Any]:
    """Return what a head gave under the core's names."""
    if weight is not None and isinstance(pred, Tensor):
        if weight.ndim == 1 and len(pred) != len(weight) == pred.numel():
            weight = weight.view_as(pred)  # some mmdet heads flatten (N, C), see focal_loss.py there
        elif weight.ndim > 1 and weight.shape == (*pred.shape[:-1], 1):
            weight = weight.expand_as(pred)  # YOLOv3's head gives one weight per anchor, (N, A, 1)
    if isinstance(avg_factor, Tensor):
        avg_factor = avg_factor.reshape(())  # one number of shape (1,) from mask2former_head.py in mmdet 3.5
    call = {
        "weight": weight,
        "divisor": avg_factor,
        "reduction": reduction_override,
        "ignore_index": ignore_index,
    }
    return {name: value for name, value in call.items() if value is not None}


def default_loss_name(core: type[nn.Module]) -> str:
    """Return how mmseg's log calls a loss whose config does not name it.

    >>> from cvplugins.losses import BoxIoULoss
    >>> default_loss_name(BoxIoULoss)
    'loss_box_iou'
    """
    words = re.findall(r"IoU|[A-Z]+(?![a-z])\d*|[A-Z][a-z]+\d*", core.__name__.removesuffix("Loss"))
    return "_".join(["loss", *words]).lower()


class CoreConvention(nn.Module):
    """A loss of any OpenMMLab registry, called as the core calls its own."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    @property
    def use_sigmoid(self) -> bool:
        """Whether the scores are one sigmoid per class."""
        return uses_sigmoid(self.loss)

    @property
    def ignore_index(self) -> int | None:
        """The index that the loss ignores if the call names none."""
        return ignored_index(self.loss.loss if isinstance(self.loss, OpenMMLabLoss) else self.loss)

    def forward(self, pred: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Translate the core's arguments into OpenMMLab's."""
        theirs = {"divisor": "avg_factor", "reduction": "reduction_override"}
        return self.loss(pred, target, **{theirs.get(name, name): value for name, value in call.items()})


def _part(config: Any) -> CoreConvention:
    """Return a loss within a loss, of any registry."""
    return CoreConvention(
        config if isinstance(config, nn.Module) else MODELS.parent.build(dict(checked_config(config)))
    )


def _built(name: str, value: Any) -> Any:
    """Return what a config asks for, or the value itself."""
    if not isinstance(value, Mapping) or "type" not in value:
        return value
    built = MODELS.parent.build(dict(value))
    if name == "backbone" and hasattr(built, "init_weights"):
        built.init_weights()  # loads what init_cfg names; the model's own call does not reach a frozen backbone
    return built
