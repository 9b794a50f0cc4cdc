"""GeneralizationHook: training and evaluation side by side, and what they say."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cvplugins.detectron2.models.model_losses import named_losses
from cvplugins.errors import UserError
from cvplugins.monitors import GeneralizationMonitor

from .evaluation import EvaluationHook

__all__ = ["GeneralizationHook"]


class GeneralizationHook(EvaluationHook):
    """Detectron2's :class:`cvplugins.monitors.GeneralizationMonitor`.

    ``train_loss`` is the name of one of the model's losses, ``"loss"`` their sum; ``train_metric`` that of a number
    that the model puts into the storage in training, such as ``fast_rcnn/cls_accuracy``.
    """

    monitor_type = GeneralizationMonitor
    monitor: GeneralizationMonitor

    def begin(self) -> None:
        """Watch the losses: Detectron2 keeps them on the first rank only."""
        super().begin()
        self._losses: list[Tensor] = []  # several where a trainer accumulates gradients
        # Before NonFiniteGuardHook puts 0 in the place of what is not finite
        self._handles += (self.model.register_forward_hook(self._keep_loss, prepend=True),)

    def after_step(self) -> None:
        """Count the iteration."""
        if not self._losses:
            return
        metric, name = None, self.monitor.train_metric
        if name is not None:
            latest = self.trainer.storage.latest()
            if name not in latest:
                raise UserError(
                    f"GeneralizationHook: {self.monitor.missing({self.monitor.train_loss: None, **latest})}"
                )
            metric = latest[name][0]
        self.monitor.judge.add(torch.stack(self._losses).mean(), metric)
        self._losses = []

    def _keep_loss(self, model: torch.nn.Module, args: Any, losses: Any) -> None:
        if not (model.training and torch.is_grad_enabled()):
            return
        named, name = named_losses(losses), self.monitor.train_loss
        if name != "loss" and name not in named:
            raise UserError(f"GeneralizationHook: {self.monitor.missing(named)}")
        loss = torch.stack(list(named.values())).sum() if name == "loss" else named[name]
        self._losses.append(loss.detach())
