"""Hook: time the training loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.engine.hooks import EvalHook

from cvplugins.distributed import is_distributed
from cvplugins.monitors import Throughput

from .plugin_hook import PluginHook, logger

__all__ = ["ThroughputHook"]


class ThroughputHook(PluginHook):
    """Say every so often how fast the training is and when it will be done; see :class:`cvplugins.monitors.Throughput`.

    Images per second over all ranks, time spent waiting for data and computing, peak memory, GPU utilisation, the
    slowest rank and the ETA go to the log in one line, and as ``throughput/...`` to the storage. Detectron2's own
    ``eta_seconds`` is the median iteration times those left, without evaluations. Checkpoints and the writing of logs
    are no part of an iteration here.

    Args:
        interval: Report every so many iterations.
        window: Iterations whose median is the ETA's.

    Raises:
        ValueError: ``interval`` or ``window`` is less than 1.
    """

    priority = 100  # what other hooks do belongs to the iteration

    def __init__(self, interval: int = 50, window: int = 200) -> None:
        self.monitor = Throughput(interval=interval, window=window)
        self._images = 0

    def begin(self) -> None:
        """Watch the model: the loop asks for its data between this hook's calls."""
        self._handles += (self.model.register_forward_pre_hook(self._batch_arrived),)
        if is_distributed():
            # What follows the forward pass waits for other ranks.
            self._handles += (self.model.register_forward_hook(lambda *_: self.monitor.forward_done()),)

    def before_step(self) -> None:
        """Begin to wait for data."""
        self._images = 0
        self.monitor.start()

    def after_step(self) -> None:
        """Count the images, and report."""
        done = self.trainer.iter + 1
        report = self.monitor.step_done(
            done, self._images, self.trainer.max_iter - done, _evaluations_left(self.trainer, done)
        )
        if report is not None:
            logger.info("throughput: %s", report)
            self.trainer.storage.put_scalars(**report.scalars(), smoothing_hint=False)

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Time an evaluation."""
        self.monitor.validation_starts()
        yield
        self.monitor.validation_done()

    def _batch_arrived(self, model: torch.nn.Module, args: tuple[Any, ...]) -> None:
        if model.training and torch.is_grad_enabled():
            if not self._images:
                self.monitor.batch_arrived()
            self._images += len(args[0])


def _evaluations_left(trainer: Any, done: int) -> int:
    """Return how many evaluations will be made after ``done`` iterations, by the rule of detectron2's EvalHook."""
    count = 0
    for hook in trainer._hooks:
        if isinstance(hook, EvalHook):
            if hook._period > 0:  # one due right now is still to come
                count += (trainer.max_iter - 1) // hook._period - (done - 1) // hook._period
            count += hook._eval_after_train
    return count
