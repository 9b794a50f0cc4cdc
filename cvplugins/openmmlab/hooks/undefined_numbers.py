"""UndefinedNumbersHook: mmengine's own hooks take a number that a validation does not have as no value yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.hooks import CheckpointHook, Hook

from cvplugins.registry import HOOKS

__all__ = ["UndefinedNumbersHook", "flat", "monitored_by_checkpoints"]


@HOOKS.register_module()
class UndefinedNumbersHook(Hook):
    """Let ``save_best`` and ``ReduceOnPlateau`` schedules pass over a validation in which their number is undefined.

    Precision is undefined while nothing reaches the score threshold, and the metrics here leave out what is undefined.
    mmengine's ``CheckpointHook`` and its schedules end the training with a KeyError then.
    """

    priority = "BELOW_NORMAL"  # before ParamSchedulerHook and CheckpointHook, and after what is logged

    def __init__(self) -> None:
        self._waiting: list[Any] = []

    def after_val_epoch(self, runner, metrics: dict[str, Any] | None = None) -> None:
        """Give CheckpointHook a None, which it passes over, and let schedules be."""
        if metrics is None:
            return
        for scheduler in flat(runner.param_schedulers):
            if getattr(scheduler, "need_val_args", False) and scheduler.monitor not in metrics:
                scheduler.need_val_args = False  # mmengine/hooks/param_scheduler_hook.py steps only those that need it
                self._waiting.append(scheduler)
                runner.logger.info(f"{type(scheduler).__name__}: no value yet: {scheduler.monitor} is undefined")
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook):
                for name in monitored_by_checkpoints(hook):
                    metrics.setdefault(name, None)

    def after_val(self, runner) -> None:
        """Let the schedules see the next validation."""
        for scheduler in self._waiting:
            del scheduler.need_val_args  # the class's is True
        self._waiting = []


def monitored_by_checkpoints(hook: CheckpointHook) -> list[str]:
    """Return the names of ``save_best``; not ``"auto"``, which is the first name that there is."""
    given = [hook.save_best] if isinstance(hook.save_best, str) else hook.save_best or []
    return [name for name in given if name != "auto"]


def flat(schedulers: Any) -> Iterator[Any]:
    """Yield the schedules of a run, or their configs; several optimizers have a dict of lists of them."""
    if isinstance(schedulers, Mapping) and "type" not in schedulers:
        schedulers = list(schedulers.values())
    if isinstance(schedulers, list):
        for each in schedulers:
            yield from flat(each)
    elif schedulers is not None:
        yield schedulers
