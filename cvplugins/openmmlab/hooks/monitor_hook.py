"""What hooks around a monitor share: its options, its events, and its state in the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from cvplugins.errors import UserError
from cvplugins.monitors import Monitor, watch_steps
from cvplugins.options import joined_signature

from .monitored_run import RunnerRun, optim_wrappers

__all__ = ["MonitorHook", "check_step", "optim_wrappers"]


class MonitorHook(Hook):
    """A hook of mmengine around a monitor: its options, its events, and its state in the checkpoint.

    Subclasses give ``monitor_type`` and ``checkpoint_key``; options of their own are keyword-only.
    """

    priority = "NORMAL"
    monitor_type: type[Monitor]
    checkpoint_key: str
    monitor: Any
    run: RunnerRun
    _handles: Sequence[Any] = ()

    def __init_subclass__(cls) -> None:
        """Take over the monitor's options, which messages and documentation show."""
        super().__init_subclass__()
        if "monitor_type" in vars(cls):
            cls.__signature__ = joined_signature(cls.monitor_type, cls)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        try:
            self.monitor = self.monitor_type(*arguments, **options)
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}: {error}") from error

    def before_train(self, runner) -> None:
        """Begin, and watch the optimizers' steps: mmengine zeroes the gradients before any hook could see them.

        Raises:
            UserError: An option does not fit the run.
        """
        self.run = RunnerRun(runner)
        try:
            self.monitor.begin(self.run)
        except ValueError as error:
            raise UserError(f"{type(self).__name__}: {error}") from error
        self._handles = watch_steps(self.run, self.monitor)

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        """Tell the monitor."""
        self.monitor.before_iteration(self.run)

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Tell the monitor."""
        self.monitor.after_iteration(self.run)

    def after_train(self, runner) -> None:
        """Leave model and optimizers as they were, and finish."""
        for handle in self._handles:
            handle.remove()
        self._handles = ()
        self.monitor.finish(self.run)
        self.monitor.release(self.run)

    def before_save_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Store the monitor's state."""
        state = self.monitor.state_dict()
        if state:
            checkpoint[self.checkpoint_key] = state

    def after_load_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Restore the monitor's state when a run is resumed; weights that are only loaded belong to another run."""
        if runner._resume and self.checkpoint_key in checkpoint:
            self.monitor.load_state_dict(checkpoint[self.checkpoint_key])


def check_step(runner, name: str, step: int | None, by_epoch: bool) -> None:
    """Refuse epochs where the training has none, and warn of a step that never comes.

    Args:
        runner: About to train.
        name: Of hook and option, for the message.
        step: Epoch or iteration, counted from 0; None for none.
        by_epoch: Which of them.

    Raises:
        UserError: The training loop counts iterations alone.
    """
    if by_epoch and not isinstance(runner.train_loop, EpochBasedTrainLoop):
        loop = type(runner.train_loop).__name__
        raise UserError(f"{name} counts epochs, and {loop} has none; set by_epoch=False and give iterations")
    end = runner.max_epochs if by_epoch else runner.max_iters
    if step is not None and step >= end:
        unit = "epochs" if by_epoch else "iterations"
        runner.logger.warning(f"{name}={step} never comes: the training ends after {end} {unit}")
