"""What hooks around a monitor share: its state in the checkpoint, and every optimizer of a run."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop

from cvplugins.errors import UserError

__all__ = ["MonitorHook", "check_step", "optim_wrappers"]


class MonitorHook(Hook):
    """Keep a monitor's state in the checkpoint.

    Subclasses give ``monitor`` (``state_dict`` and ``load_state_dict``) and ``checkpoint_key``.
    """

    checkpoint_key: str
    monitor: Any

    def before_save_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Store the monitor's state."""
        checkpoint[self.checkpoint_key] = self.monitor.state_dict()

    def after_load_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Restore the monitor's state."""
        if self.checkpoint_key in checkpoint:
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


def optim_wrappers(runner) -> dict[str, OptimWrapper]:
    """Return the optimizer wrappers of a run by their names, ``""`` for the only one."""
    wrapper = runner.optim_wrapper
    return dict(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else {"": wrapper}
