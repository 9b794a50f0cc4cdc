"""ThroughputHook: time the training loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.engine.hooks import EvalHook

from cvplugins.distributed import is_distributed
from cvplugins.monitors import ThroughputMonitor

from .plugin_hook import MonitorHook

__all__ = ["ThroughputHook"]


class ThroughputHook(MonitorHook):
    """Detectron2's :class:`cvplugins.monitors.ThroughputMonitor`.

    Detectron2's own ``eta_seconds`` is the median iteration times those left, without evaluations. Checkpoints and the
    writing of logs are no part of an iteration here.
    """

    priority = 100  # what other hooks do belongs to the iteration
    monitor_type = ThroughputMonitor
    _images = 0

    def begin(self) -> None:
        """Watch the model: the loop asks for its data between this hook's calls."""
        super().begin()
        self._handles += (self.run.model.register_forward_pre_hook(self._batch_arrived),)
        if is_distributed():
            # What follows the forward pass waits for other ranks.
            self._handles += (self.run.model.register_forward_hook(lambda *_: self.monitor.clock.forward_done()),)

    def before_step(self) -> None:
        """Begin to wait for data."""
        self._images = 0
        self.monitor.clock.start()

    def after_step(self) -> None:
        """Count the images, and report."""
        done = self.trainer.iter + 1
        left = self.trainer.max_iter - done
        self.monitor.iteration_done(self.run, self._images, left, _evaluations_left(self.trainer, done))

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Time an evaluation."""
        self.monitor.clock.validation_starts()
        yield
        self.monitor.clock.validation_done()

    def _batch_arrived(self, model: torch.nn.Module, args: tuple[Any, ...]) -> None:
        if model.training and torch.is_grad_enabled():
            if not self._images:
                self.monitor.clock.batch_arrived()
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
