"""mmengine's Runner, as a monitor sees it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn
from torch.optim import Optimizer

from cvplugins.monitors import Run

__all__ = ["RunnerRun", "optim_wrappers"]


class RunnerRun(Run):
    """The port to a Runner: numbers go to its message hub and visualizer, words to its logger."""

    def __init__(self, runner: Any) -> None:
        self.runner = runner
        self._loss_at: int | None = None

    @property
    def model(self) -> nn.Module:
        """The model, not wrapped."""
        model: Any = self.runner.model
        return model.module if is_model_wrapper(model) else model

    @property
    def optimizers(self) -> Mapping[str, Optimizer]:
        """The optimizers of the wrappers."""
        return {part: each.optimizer for part, each in optim_wrappers(self.runner).items()}

    @property
    def iteration(self) -> int:
        """The current iteration, counted from 0."""
        return int(self.runner.iter)

    @property
    def folder(self) -> Path:
        """The folder of this run's log, below the work dir."""
        return Path(self.runner.log_dir)

    def log(self, scalars: Mapping[str, float]) -> None:
        """Give numbers to the log, which leaves out the prefix ``train/``."""
        for name, value in scalars.items():
            self.runner.message_hub.update_scalar(f"train/{name}", value)

    def plot(self, scalars: Mapping[str, float], step: int | None = None) -> None:
        """Give numbers to the visualizer's backends."""
        self.runner.visualizer.add_scalars(dict(scalars), step=self.runner.iter if step is None else step)

    def info(self, message: str) -> None:
        """Write a line of the log."""
        self.runner.logger.info(message)

    def warn(self, message: str) -> None:
        """Write a warning."""
        self.runner.logger.warning(message)

    def newest_loss(self) -> float | None:
        """Return the loss of the iteration before, unless it was returned in this one."""
        hub = self.runner.message_hub
        if self._loss_at == self.runner.iter or "train/loss" not in hub.log_scalars:
            return None
        self._loss_at = self.runner.iter
        return float(hub.get_scalar("train/loss").current())


def optim_wrappers(runner: Any) -> dict[str, OptimWrapper]:
    """Return the optimizer wrappers of a run by their names, ``""`` for the only one."""
    wrapper = runner.optim_wrapper
    return dict(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else {"": wrapper}
