"""OpenMMLab's calling convention around the core losses, written once for all of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cvplugins.losses import LOSSES
from cvplugins.registry import MODELS

__all__ = ["OpenMMLabLoss"]


class OpenMMLabLoss(nn.Module):
    """A core loss as mmdet and mmseg heads call it; no arithmetic but ``loss_weight``.

    Args:
        loss_weight: Factor of the loss.
        loss_name: Name in mmseg's log, beginning with ``loss_``; from the class if absent.
        options: Options of the core loss.
    """

    core: type[nn.Module]

    def __init__(self, loss_weight: float = 1.0, loss_name: str | None = None, **options: Any) -> None:
        super().__init__()
        accepted = inspect.signature(self.core).parameters
        _drop_what_is_fixed(self.core, options, accepted)
        unknown = sorted(set(options) - set(accepted))
        if unknown:
            raise TypeError(f"{self.core.__name__} has no option {', '.join(unknown)}; it has {', '.join(accepted)}")
        self.loss = self.core(**options)
        self.loss_weight = loss_weight
        self.loss_name = loss_name or _loss_name(self.core)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        ignore_index: int | None = None,
    ) -> Tensor:
        """Translate OpenMMLab's arguments into the core's and scale the result."""
        if weight is not None and weight.ndim == 1 and weight.numel() == pred.numel():
            weight = weight.view_as(pred)  # some mmdet heads flatten (N, C), see focal_loss.py there
        call = {
            "weight": weight,
            "divisor": avg_factor,
            "reduction": reduction_override,
            "ignore_index": ignore_index,
        }
        given = {name: value for name, value in call.items() if value is not None}
        return self.loss_weight * self.loss(pred, target, **given)

    # What mmdet's heads ask a classification loss for; DETR-like ones the first, BBoxHead the rest. With one
    # sigmoid per class there is no channel for the background, which BBoxHead otherwise adds.

    @property
    def use_sigmoid(self) -> bool:
        """Whether the scores are one sigmoid per class."""
        return bool(getattr(self.loss, "use_sigmoid", False))

    custom_cls_channels = custom_activation = custom_accuracy = use_sigmoid

    def get_cls_channels(self, num_classes: int) -> int:
        """Return the number of channels of the classifier."""
        return num_classes if self.use_sigmoid else num_classes + 1

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Return scores ``(N, num_classes + 1)``; the head drops the last column, the background."""
        scores = cls_score.sigmoid()
        return torch.cat([scores, scores.new_zeros(len(scores), 1)], dim=1)

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the accuracy in per cent on samples that are not background."""
        from mmdet.models.losses import accuracy

        positive = labels < cls_score.shape[1]
        return {"acc": accuracy(cls_score[positive], labels[positive])}


def _drop_what_is_fixed(core: type[nn.Module], options: dict[str, Any], accepted: Mapping[str, Any]) -> None:
    """Take ``use_sigmoid`` out, which mmdet's heads want in the config of a loss that has no such choice."""
    if "use_sigmoid" in options and "use_sigmoid" not in accepted:
        fixed = bool(getattr(core, "use_sigmoid", False))
        if options.pop("use_sigmoid") != fixed:
            raise ValueError(f"{core.__name__} works with use_sigmoid={fixed} only")


def _loss_name(core: type[nn.Module]) -> str:
    words = re.findall(r"IoU|[A-Z]+(?![a-z])\d*|[A-Z][a-z]+\d*", core.__name__.removesuffix("Loss"))
    return "_".join(["loss", *words]).lower()


def _register(core: type[nn.Module]) -> None:
    adapted = type(core.__name__, (OpenMMLabLoss,), {"core": core, "__module__": __name__, "__doc__": core.__doc__})
    globals()[core.__name__] = adapted  # so that a model with this loss can be pickled
    MODELS.register_module(name=core.__name__, module=adapted)


for _core in LOSSES:
    _register(_core)
