"""mmengine's Runner, as a monitor sees it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import EMAHook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn
from torch.optim import Optimizer

from cvplugins.monitors import MetricNames, Run
from cvplugins.openmmlab.run.metric_names import metric_names

from .undefined_numbers import flat

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

    framework = "openmmlab"

    @property
    def work_dir(self) -> Path:
        """The work dir."""
        return Path(self.runner.work_dir)

    @property
    def log_dir(self) -> Path:
        """The folder of this run's log, below the work dir."""
        return Path(self.runner.log_dir)

    @property
    def config_name(self) -> str:
        """The name by which mmengine/runner/runner.py (0.10.12, dump_config) wrote the config."""
        filename = self.runner.cfg.filename
        return Path(filename).name if filename else f"{self.runner.timestamp}.py"

    @property
    def averages(self) -> list[Any]:
        """The averaged models of mmengine's EMAHook and of ours."""
        return [hook.ema_model for hook in self.runner.hooks if isinstance(hook, EMAHook)]

    @property
    def autocast(self) -> tuple[str, str] | None:
        """Device and dtype of AmpOptimWrapper, the first one's of several."""
        wrapper = next(iter(optim_wrappers(self.runner).values()))
        if not hasattr(wrapper, "loss_scaler"):
            return None
        device = next(self.model.parameters()).device.type
        dtype = wrapper.cast_dtype or (torch.bfloat16 if device == "cpu" else torch.float16)
        return device, str(dtype).removeprefix("torch.")

    @property
    def is_scaled(self) -> bool:
        """Whether a wrapper scales its loss."""
        return any(hasattr(wrapper, "loss_scaler") for wrapper in optim_wrappers(self.runner).values())

    def scale_learning_rates(self, factor: float) -> None:
        """Multiply the rates of the wrappers' groups, and the base rates of mmengine's schedulers."""
        for wrapper in optim_wrappers(self.runner).values():
            for group in wrapper.param_groups:
                for key in ("lr", "initial_lr"):
                    if key in group:
                        group[key] *= factor
        for scheduler in flat(self.runner.param_schedulers):
            if scheduler.param_name == "lr":
                scheduler.base_values = [value * factor for value in scheduler.base_values]

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

    weights_key = "state_dict"

    @property
    def tested_models(self) -> list[nn.Module]:
        """The model, and what EMAHook puts into its place."""
        return [self.model, *(average.module for average in self.averages)]

    def metric_names(self) -> MetricNames:
        """Return what the evaluator's metrics and the hooks give."""
        return metric_names(self.runner)

    def stop(self, reason: str) -> None:
        """Let the loop end before its next epoch or iteration."""
        self.runner.train_loop.stop_training = True


def optim_wrappers(runner: Any) -> dict[str, OptimWrapper]:
    """Return the optimizer wrappers of a run by their names, ``""`` for the only one."""
    wrapper = runner.optim_wrapper
    return dict(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else {"": wrapper}
