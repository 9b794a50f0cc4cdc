"""What hooks around a monitor share: its state in the checkpoint, and every optimizer of a run."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict

__all__ = ["MonitorHook", "optim_wrappers"]


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


def optim_wrappers(runner) -> dict[str, OptimWrapper]:
    """Return the optimizer wrappers of a run by their names, ``""`` for the only one."""
    wrapper = runner.optim_wrapper
    return dict(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else {"": wrapper}
