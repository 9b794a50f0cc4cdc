"""ThroughputHook: time mmengine's training loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.dist import get_world_size
from mmengine.runner import IterBasedTrainLoop
from torch import Tensor

from cvplugins.monitors import ThroughputMonitor
from cvplugins.registry import HOOKS

from .monitor_hook import MonitorHook

__all__ = ["ThroughputHook"]


@HOOKS.register_module()
class ThroughputHook(MonitorHook):
    """mmengine's :class:`cvplugins.monitors.ThroughputMonitor`.

    mmengine's own ``IterTimerHook`` logs ``time``, ``data_time`` and ``eta``, those of the first rank: its ETA is the
    mean since the start and leaves out validations. Both can run.

    Example:
        In a config::

            custom_hooks = [dict(type='cvplugins.ThroughputHook', interval=50)]
    """

    # As late as possible: what other hooks do belongs to the iteration.
    priority = "LOWEST"
    monitor_type = ThroughputMonitor
    checkpoint_key = "cvplugins_throughput"

    def before_train(self, runner) -> None:
        """Watch forward passes, if there are other ranks."""
        super().before_train(runner)
        if get_world_size() > 1:
            # What follows the forward pass waits for other ranks.
            self._handles = [runner.model.register_forward_hook(lambda *_: self.monitor.clock.forward_done())]

    def before_train_epoch(self, runner) -> None:
        """Start the clock; what happened between two epochs, a checkpoint perhaps, is no wait for data."""
        self.monitor.clock.start()

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        """End the wait for data."""
        self.monitor.clock.batch_arrived()

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Count the images, and report."""
        done = runner.iter + 1
        left = max(runner.max_iters - done, 0)
        self.monitor.iteration_done(self.run, _images(data_batch), left, _validations_left(runner, done))

    def before_val(self, runner) -> None:
        """Stop the training's clock."""
        self.monitor.clock.validation_starts()

    def after_val(self, runner) -> None:
        """Time the validation."""
        self.monitor.clock.validation_done()


def _images(batch: Any) -> int:
    """Return the number of images of a batch: of OpenMMLab's form, of arguments in order, or a list of samples."""
    if isinstance(batch, Mapping):
        inputs = batch["inputs"] if "inputs" in batch else next(iter(batch.values()), ())
        return _images(inputs) if isinstance(inputs, Mapping) else len(inputs)
    if isinstance(batch, list | tuple) and batch and isinstance(batch[0], Tensor):
        return len(batch[0])
    return len(batch)


def _validations_left(runner, done: int) -> int:
    """Return how many validations the loop will make after ``done`` iterations, by the rule of mmengine's loops."""
    loop = runner.train_loop
    if runner.val_loop is None:
        return 0
    if isinstance(loop, IterBasedTrainLoop):
        last, now = runner.max_iters, done - 1  # one due right now is still to come
    else:
        last, now = runner.max_epochs, runner.epoch
    start = max(now + 1, loop.val_begin)
    if start > last:
        return 0
    regular = last // loop.val_interval - (start - 1) // loop.val_interval
    return regular + (last % loop.val_interval != 0)
