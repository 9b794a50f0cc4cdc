"""Hook: time mmengine's training loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.dist import get_world_size
from mmengine.runner import IterBasedTrainLoop
from torch import Tensor

from cvplugins.monitors import Throughput
from cvplugins.registry import HOOKS

from .monitor_hook import MonitorHook

__all__ = ["ThroughputHook"]


@HOOKS.register_module()
class ThroughputHook(MonitorHook):
    """Say every so often how fast the training is and when it will be done; see :class:`cvplugins.monitors.Throughput`.

    Images per second over all ranks, time spent waiting for data and computing, peak memory, GPU utilisation (needs
    ``pip install nvidia-ml-py``), the slowest rank and the ETA go to the log in one line, and as ``throughput/...``
    to every backend of the visualizer. mmengine's own ``IterTimerHook`` logs ``time``, ``data_time`` and ``eta``,
    those of the first rank: its ETA is the mean since the start and leaves out validations. Both can run.

    Args:
        interval: Report every so many iterations.
        window: Iterations whose median is the ETA's.

    Raises:
        ValueError: ``interval`` or ``window`` is less than 1.

    Example:
        In a config::

            custom_hooks = [dict(type='cvplugins.ThroughputHook', interval=50)]
    """

    # As late as possible: what other hooks do belongs to the iteration.
    priority = "LOWEST"
    checkpoint_key = "cvplugins_throughput"

    def __init__(self, interval: int = 50, window: int = 200) -> None:
        self.monitor = Throughput(interval=interval, window=window)
        self._handle: Any = None

    def before_train(self, runner) -> None:
        """Watch forward passes, if there are other ranks."""
        if get_world_size() > 1:
            # What follows the forward pass waits for other ranks.
            self._handle = runner.model.register_forward_hook(lambda *_: self.monitor.forward_done())

    def before_train_epoch(self, runner) -> None:
        """Start the clock; what happened between two epochs, a checkpoint perhaps, is no wait for data."""
        self.monitor.start()

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        """End the wait for data."""
        self.monitor.batch_arrived()

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Count the images, and report."""
        done = runner.iter + 1
        report = self.monitor.step_done(
            done, _images(data_batch), max(runner.max_iters - done, 0), _validations_left(runner, done)
        )
        if report is not None:
            runner.logger.info(f"throughput: {report}")
            runner.visualizer.add_scalars(report.scalars(), step=done)

    def before_val(self, runner) -> None:
        """Stop the training's clock."""
        self.monitor.validation_starts()

    def after_val(self, runner) -> None:
        """Time the validation."""
        self.monitor.validation_done()

    def after_train(self, runner) -> None:
        """Leave the model as it was."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None


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
