"""NonFiniteGuardHook: answer NaN and infinity under a Detectron2 trainer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer
from detectron2.utils.events import EventStorage

from cvplugins.detectron2.data.batch_images import image_names, image_tensors
from cvplugins.detectron2.models.model_losses import forward_without_raising, named_losses, summed_losses
from cvplugins.detectron2.upstream import replace_forward, restore_forward
from cvplugins.distributed import gather_objects
from cvplugins.monitors import NonFiniteMonitor

from .plugin_hook import MonitorHook

__all__ = ["NonFiniteGuardHook"]


class NonFiniteGuardHook(MonitorHook):
    """Detectron2's :class:`cvplugins.monitors.NonFiniteMonitor`.

    A model that raises ``FloatingPointError`` itself, as one with an RPN does when proposals are not finite, gets NaN
    for its losses, and the iteration is answered like any other.

    Detectron2's own check raises before the step, on the first rank alone, which leaves the others waiting. It does not
    see what is not finite here: in the losses that the trainer gets, 0 stands for it.
    """

    priority = 30  # before gradients are clipped or judged
    monitor_type = NonFiniteMonitor

    def begin(self) -> None:
        """Watch the model, which computes the losses, and the steps."""
        super().begin()
        replace_forward(self.model, forward_without_raising(self.model))
        self._handles += (self.model.register_forward_hook(self._keep_losses),)
        # Only the first rank has the hook that saves.
        own = [hook.period for hook in self.trainer._hooks if isinstance(hook, PeriodicCheckpointer)]
        evaluations = [hook._period for hook in self.trainer._hooks if isinstance(hook, EvalHook)]
        self._periods = [period for period in gather_objects(own)[0] + evaluations if period > 0]

    def release(self) -> None:
        """Give the model its own ``forward`` back."""
        super().release()
        restore_forward(self.model)

    def after_step(self) -> None:
        """Guard what is saved or evaluated next."""
        done = self.trainer.iter + 1
        is_last = done == self.trainer.max_iter
        self.monitor.end_iteration(self.run, is_last or any(done % each == 0 for each in self._periods))

    def _keep_losses(self, model: torch.nn.Module, args: tuple[Any, ...], losses: Any) -> Any:
        """Keep the losses, and return them with 0 in the place of what is not finite."""
        if not (model.training and torch.is_grad_enabled()):
            return None
        named = named_losses(losses)
        attempt = self.monitor.attempt
        attempt.batch = [*(attempt.batch or []), args[0]]  # several where a trainer accumulates gradients
        attempt.images = [*attempt.images, *image_names(args[0])]
        attempt.inputs = {**attempt.inputs, **image_tensors(args[0])}
        attempt.repeat = self._repeat
        attempt.losses = summed_losses([attempt.losses, {name: value.detach() for name, value in named.items()}])
        finite = {name: torch.where(value.isfinite(), value, 0) for name, value in named.items()}
        return finite if isinstance(losses, Mapping) else finite["total_loss"]

    def _repeat(self) -> None:
        """Run the forward passes again, in a storage of their own, so that nothing is logged twice."""
        device, dtype = self.run.autocast or ("cpu", "bfloat16")
        precision = torch.autocast(device, getattr(torch, dtype), enabled=self.run.autocast is not None)
        batches = list(self.monitor.attempt.batch)
        with EventStorage(self.trainer.iter), precision, suppress(FloatingPointError):  # of the RPN, further behind
            for batch in batches:
                self.model(batch)
