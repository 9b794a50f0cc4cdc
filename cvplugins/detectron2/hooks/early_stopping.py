"""Hook: stop when evaluations no longer get better, and put the best weights back."""

from __future__ import annotations

from cvplugins.monitors import EarlyStoppingMonitor

from .evaluation import EvaluationHook

__all__ = ["EarlyStoppingHook", "TrainingStopped"]


class TrainingStopped(SystemExit):
    """Raised within ``trainer.train()``, which has no other end: a training has stopped early, and well.

    A program that does not catch it ends with exit code 0, after every hook's ``after_train``. To go on behind the
    training::

        with contextlib.suppress(TrainingStopped):
            trainer.train()

    Attributes:
        reason: Why.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(0)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class EarlyStoppingHook(EvaluationHook):
    """Detectron2's :class:`cvplugins.monitors.EarlyStoppingMonitor`; ``MODEL.WEIGHTS`` takes what it writes.

    It raises :class:`TrainingStopped` before the iteration after the evaluation, when that is written and logged.
    """

    monitor_type = EarlyStoppingMonitor

    def before_step(self) -> None:
        """Stop here, where all that belongs to the last iteration is done."""
        super().before_step()
        if self.run.stop_reason is not None:
            self.stops = True
            raise TrainingStopped(self.run.stop_reason)
