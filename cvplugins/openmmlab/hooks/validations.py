"""ValidationsHook: a resumed run knows of every validation that the straight one would have made."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.hooks import CheckpointHook, Hook, ParamSchedulerHook
from mmengine.runner import EpochBasedTrainLoop

from cvplugins.monitors import Journal
from cvplugins.registry import HOOKS

from .undefined_numbers import UndefinedNumbersHook

__all__ = ["ValidationsHook"]


@HOOKS.register_module()
class ValidationsHook(Hook):
    """Keep the numbers of each validation in ``validations.jsonl``, and make up for one that a killed run owes.

    mmengine writes a checkpoint before the validation of the same epoch. A resumed run would never make a validation
    that the kill prevented, so that its weights could never be the best; and ``save_best`` and ``ReduceOnPlateau``
    would not know of one that was made. Here the first is made up for, and of the second the numbers are handed over
    again.
    """

    priority = 89  # directly before CheckpointHook, whose second checkpoint of an epoch knows of the validation
    journal_name = "validations.jsonl"
    checkpoint_key = "cvplugins_validations"

    def __init__(self) -> None:
        self.last = -1  # iteration of the last validation that the schedules and save_best know
        self.journal: Journal | None = None

    def before_run(self, runner) -> None:
        """Have the owed validation made when all hooks are ready."""
        runner.register_hook(_OwedValidation(self), priority="LOWEST")

    def before_train(self, runner) -> None:
        """Continue the journal of a resumed run, or begin a new one."""
        if runner.val_loop is not None:
            self.journal = Journal(Path(runner.work_dir, self.journal_name))

    def after_val_epoch(self, runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Write the numbers down; validations outside of a training do not count."""
        if metrics is None or self.journal is None:
            return
        self.last = runner.iter
        self.journal.append({"iteration": runner.iter, "epoch": runner.epoch, "metrics": _plain(metrics)})

    def after_train(self, runner) -> None:
        """Close the journal."""
        self.journal = None

    def before_save_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Store which validation the schedules know."""
        checkpoint[self.checkpoint_key] = {"last": self.last}

    def after_load_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Restore it when a run is resumed."""
        if runner._resume:
            self.last = checkpoint.get(self.checkpoint_key, {}).get("last", -1)


class _OwedValidation(Hook):
    """Make the validation that was due when the checkpoint of a resumed run was written, or repeat what it said."""

    def __init__(self, validations: ValidationsHook) -> None:
        self.validations = validations

    def before_train(self, runner) -> None:
        own = self.validations
        if own.journal is None:
            return
        records = own.journal.rewind(runner.iter or -1)
        if own.last >= runner.iter or not _is_due(runner):
            return
        if not records or records[-1]["iteration"] < runner.iter:
            runner.logger.info(f"the validation of iteration {runner.iter} is made up for: the run ended before it did")
            runner.val_loop.run()
            return
        own.last = runner.iter
        repeated = (UndefinedNumbersHook, ParamSchedulerHook, CheckpointHook)
        hooks = [hook for hook in runner.hooks if isinstance(hook, repeated)]
        metrics = records[-1]["metrics"]
        for hook in hooks:
            hook.after_val_epoch(runner, metrics=metrics)
        for hook in hooks:
            hook.after_val(runner)


def _is_due(runner) -> bool:
    """Return whether the loop makes a validation at the iteration that it stands at (mmengine/runner/loops.py)."""
    loop = runner.train_loop
    loop._decide_current_val_interval()
    counts_epochs = isinstance(loop, EpochBasedTrainLoop)
    step, end = (runner.epoch, loop.max_epochs) if counts_epochs else (runner.iter, loop.max_iters)
    return step > 0 and step >= loop.val_begin and (step % loop.val_interval == 0 or step == end)


def _plain(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers; a hook may have added something else."""
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in metrics.items()}
    return {name: float(value) for name, value in plain.items() if isinstance(value, numbers.Real)}
