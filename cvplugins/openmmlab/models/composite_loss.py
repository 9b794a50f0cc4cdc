"""CompositeLoss in OpenMMLab: its parts in the log, its schedules on the runner's iteration."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.logging import MessageHub
from torch import Tensor, nn

from cvplugins.losses import CompositeLoss as Core
from cvplugins.losses.composite import total
from cvplugins.registry import MODELS

from .loss_adapter import OpenMMLabLoss, core_arguments

__all__ = ["CompositeLoss"]


class CompositeLoss(OpenMMLabLoss, nn.ModuleList):
    """Weighted sum of losses, of ours or of mmdet's and mmseg's, wherever a head takes one loss.

    In mmseg's decode heads the parts stand in the log as if they were a list of losses: ``decode.loss_dice``.
    (Those heads loop over an ``nn.ModuleList``, which is why this is one; see ``decode_head.py`` there.)
    Elsewhere a head takes one tensor, so that the parts go to the log beside the head's own entry, as
    ``{loss_name}.{part}``: what the part added to the loss of the iteration, over all calls (levels, layers).

    Args:
        losses: Configs of the parts under their names.
        weights: Factor of each part, see the core.
        loss_name: How the parts are called in the log; give each CompositeLoss of a model its own.
        class_weight: For parts that have such an option and do not set it. Mask2Former's head reads it from here.
        use_sigmoid: Has to agree with the parts; mmdet's dense heads read it from here.
        loss_weight: Factor of the sum.
    """

    core = Core
    loss: Core
    loss_weight: float

    def __init__(self, losses: Mapping[str, Any], class_weight: Any = None, **options: Any) -> None:
        if isinstance(losses, Mapping):
            losses = {name: _with_class_weight(part, class_weight) for name, part in losses.items()}
        super().__init__(losses=losses, **options)
        self.logged_iteration = -1

    def compute(self, pred: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Sum the parts, and log them while a runner trains."""
        hub = self.follow_runner()
        parts = self.loss.parts(pred, target, **call)
        loss = total(parts)
        if hub is not None and self.training and loss.ndim == 0 and torch.is_grad_enabled():
            self._log(hub, parts)
        return loss

    def follow_runner(self) -> MessageHub | None:
        """Set the schedules to the iteration of the runner, and return its hub if it trains."""
        hub = MessageHub.get_current_instance()
        if hub.get_info("loop_stage") != "train":
            return None
        self.loss.iteration = hub.get_info("iter")
        return hub

    def __iter__(self) -> Iterator[Any]:
        """Yield the parts as mmseg's decode heads want them."""
        return (_Part(self, name) for name in self.loss.losses)

    __repr__ = nn.Module.__repr__  # that of ModuleList lists what it iterates over

    def _log(self, hub: MessageHub, parts: dict[str, Tensor]) -> None:
        again = self.logged_iteration == self.loss.iteration
        self.logged_iteration = self.loss.iteration
        values = (self.loss_weight * torch.stack(list(parts.values())).detach()).tolist()
        for name, value in zip(parts, values, strict=True):
            key = f"train/{self.loss_name}.{name}"
            if again:  # another level or layer of the same iteration
                history, _ = hub.get_scalar(key).data
                history[-1] += value
            else:
                hub.update_scalar(key, value)


class _Part:
    """One part of a CompositeLoss, called and named as a loss of its own."""

    def __init__(self, whole: CompositeLoss, name: str) -> None:
        self.whole = whole
        self.name = name
        self.loss_name = name if name.startswith("loss_") else f"loss_{name}"

    def __call__(self, pred: Tensor, target: Tensor, **call: Any) -> Tensor:
        self.whole.follow_runner()
        return self.whole.loss_weight * self.whole.loss.part(self.name, pred, target, **core_arguments(pred, **call))


def _with_class_weight(part: Any, class_weight: Any) -> Any:
    """Return the config of a part with the class weights, if it has such an option and does not set it."""
    if class_weight is None or not isinstance(part, Mapping) or "type" not in part or "class_weight" in part:
        return part
    kind = MODELS.parent.get(part["type"])
    if kind is None:
        return part  # building it says what is wrong
    options = inspect.signature(getattr(kind, "core", kind)).parameters
    return {**part, "class_weight": class_weight} if "class_weight" in options else part
