"""NonFiniteGuardHook: answer NaN and infinity under mmengine's Runner."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.hooks import CheckpointHook
from mmengine.runner import IterBasedTrainLoop
from torch import Tensor

from cvplugins.monitors import Attempt, NonFiniteMonitor
from cvplugins.openmmlab.data.batch_images import image_names, image_tensors
from cvplugins.openmmlab.run.replay import loss_components, run_forward
from cvplugins.registry import HOOKS

from .monitor_hook import MonitorHook, optim_wrappers

__all__ = ["NonFiniteGuardHook"]


@HOOKS.register_module()
class NonFiniteGuardHook(MonitorHook):
    """mmengine's :class:`cvplugins.monitors.NonFiniteMonitor`."""

    priority = "HIGH"  # before EMA and checkpoints, and after IterationSeedHook
    monitor_type = NonFiniteMonitor
    checkpoint_key = "cvplugins_nonfinite_guard"

    def before_train(self, runner) -> None:
        """Register with the model, which computes the losses, and with every optimizer."""
        super().before_train(runner)
        self._handles = [*self._handles, self.run.model.register_forward_hook(self._keep_losses, with_kwargs=True)]

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        """Remember what the iteration starts from."""
        super().before_train_iter(runner, batch_idx, data_batch)
        wrapper = next(iter(optim_wrappers(runner).values()))

        def repeat() -> None:
            with wrapper.optim_context(self.run.model):
                run_forward(self.run.model, data_batch)

        self.monitor.attempt = Attempt(
            batch=data_batch,
            images=image_names(data_batch),
            inputs=image_tensors(data_batch),
            repeat=None if data_batch is None else repeat,
        )

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Guard what is validated or saved next."""
        self.monitor.end_iteration(self.run, self._is_used_next(runner))
        _leave_out_of_means(runner)

    def after_train_epoch(self, runner) -> None:
        """Look at the weights before they are validated and saved."""
        self.monitor.observe(self.run)

    def _is_used_next(self, runner) -> bool:
        hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and not hook.by_epoch]
        intervals = [hook.interval for hook in hooks if hook.interval > 0]
        if isinstance(runner.train_loop, IterBasedTrainLoop) and runner.val_loop is not None:
            intervals.append(runner.train_loop.val_interval)
        is_due = any(self.every_n_train_iters(runner, interval) for interval in intervals)
        return is_due or self.is_last_train_iter(runner)

    def _keep_losses(self, model, args, kwargs, output) -> None:
        if kwargs.get("mode") == "loss" and isinstance(output, Mapping) and torch.is_grad_enabled():
            # A model may be called several times an iteration, as in adversarial training.
            found = {name: _detached(value) for name, value in loss_components(output).items()}
            self.monitor.attempt.losses.update(found)


def _leave_out_of_means(runner) -> None:
    """Let what is not finite of this iteration not count in the log's means, for the rest of their window.

    RuntimeInfoHook has put it into the histories of the message hub by now; a mean there is a sum over counts.
    """
    for name, history in runner.message_hub.log_scalars.items():
        if name.startswith("train/") and re.search(runner.log_processor.mean_pattern, name):
            values, counts = history.data
            if len(values) and not math.isfinite(values[-1]):
                values[-1] = counts[-1] = 0


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else [each.detach() for each in value]
