"""GeneralizationHook: training and evaluation side by side, and what they say."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cvplugins.errors import UserError
from cvplugins.monitors import GeneralizationMonitor

from .evaluation_hook import EvaluationHook
from .model_losses import named_losses
from .plugin_hook import monitor_signature
from .trainer_run import TrainerRun

__all__ = ["GeneralizationHook"]


class GeneralizationHook(EvaluationHook):
    """Detectron2's :class:`cvplugins.monitors.GeneralizationMonitor`.

    ``train_loss`` is the name of one of the model's losses, ``"loss"`` their sum; ``train_metric`` that of a number
    that the model puts into the storage in training, such as ``fast_rcnn/cls_accuracy``.
    """

    __signature__: inspect.Signature = monitor_signature(GeneralizationMonitor)
    journal_name = "generalization.jsonl"

    def __init__(self, *arguments: Any, output_dir: str = ".", **options: Any) -> None:
        super().__init__(output_dir)
        self.monitor = GeneralizationMonitor(*arguments, **options)
        self._losses: list[Tensor] = []  # several where a trainer accumulates gradients

    def begin(self) -> None:
        """Watch the losses: Detectron2 keeps them on the first rank only."""
        super().begin()
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

    def monitored(self) -> dict[str, str]:
        """Return the names of the loss and of the metric of the evaluation."""
        return self.monitor.monitored()

    def record(self, scalars: Mapping[str, float]) -> dict[str, Any]:
        """Return the evaluation, and the training since the last one."""
        done, seen = min(self.trainer.iter + 1, self.trainer.max_iter), self.monitor.seen
        return self.monitor.record(done, lambda name: self.value(scalars, name, seen))

    def observe(self, record: dict[str, Any], replayed: bool) -> dict[str, Any]:
        """Judge."""
        return self.monitor.observe(TrainerRun(self.trainer, self.output_dir), record, replayed)

    def finish(self) -> None:
        """Draw the whole course, and say what came of it."""
        super().finish()
        self.monitor.finish(TrainerRun(self.trainer, self.output_dir))

    def _keep_loss(self, model: torch.nn.Module, args: Any, losses: Any) -> None:
        if not (model.training and torch.is_grad_enabled()):
            return
        named, name = named_losses(losses), self.monitor.train_loss
        if name != "loss" and name not in named:
            raise UserError(f"GeneralizationHook: {self.monitor.missing(named)}")
        loss = torch.stack(list(named.values())).sum() if name == "loss" else named[name]
        self._losses.append(loss.detach())
