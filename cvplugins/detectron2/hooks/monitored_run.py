"""Detectron2's trainer, as a monitor sees it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.engine.hooks import LRScheduler as LRSchedulerHook
from detectron2.solver import LRScheduler
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from cvplugins.monitors import MetricNames, Run, WeightAverage, WeightAverageMonitor

__all__ = ["TrainerRun", "logger"]

logger = logging.getLogger("detectron2.cvplugins")  # below the one that Detectron2's setup_logger shows


class TrainerRun(Run):
    """The port to a trainer: numbers go to its storage, words to Detectron2's logger.

    Args:
        trainer: The trainer.
        output_dir: Where the run writes its files.
    """

    def __init__(self, trainer: Any, output_dir: str = ".") -> None:
        self.trainer = trainer
        self.output_dir = output_dir
        self._loss_at: int | None = None
        self.stop_reason: str | None = None

    @property
    def model(self) -> nn.Module:
        """The model, not wrapped."""
        model: Any = self.trainer.model
        return model.module if isinstance(model, DistributedDataParallel) else model

    @property
    def optimizers(self) -> Mapping[str, Optimizer]:
        """The trainer's only optimizer."""
        return {"": self.trainer.optimizer}

    @property
    def iteration(self) -> int:
        """The current iteration, counted from 0."""
        return int(self.trainer.iter)

    framework = "detectron2"
    config_name = "config.yaml"  # as detectron2/engine/defaults.py (default_setup) names it

    @property
    def work_dir(self) -> Path:
        """The output folder."""
        return Path(self.output_dir)

    log_dir = work_dir

    @property
    def averages(self) -> list[WeightAverage]:
        """The averages of our EMAHook."""
        monitors = [getattr(hook, "monitor", None) for hook in self.trainer._hooks]
        found = [each.average for each in monitors if isinstance(each, WeightAverageMonitor)]
        return [each for each in found if each is not None]

    @property
    def _inner(self) -> Any:
        """What makes the steps: a DefaultTrainer has a SimpleTrainer or AMPTrainer within."""
        return getattr(self.trainer, "_trainer", self.trainer)

    @property
    def autocast(self) -> tuple[str, str] | None:
        """Device and dtype of AMPTrainer, which casts on a GPU only, and even if its GradScaler is off."""
        precision = getattr(self._inner, "precision", None)
        if precision is None or not next(self.model.parameters()).is_cuda:
            return None
        return "cuda", str(precision).removeprefix("torch.")

    @property
    def is_scaled(self) -> bool:
        """Whether AMPTrainer scales its loss."""
        scaler = getattr(self._inner, "grad_scaler", None)
        return scaler is not None and scaler.is_enabled()

    @property
    def schedulers(self) -> list[LRScheduler]:
        """What Detectron2's hooks change the learning rates by."""
        found = [hook.scheduler for hook in self.trainer._hooks if isinstance(hook, LRSchedulerHook)]
        return [scheduler for scheduler in found if isinstance(scheduler, LRScheduler)]

    def scale_learning_rates(self, factor: float) -> None:
        """Multiply the rates of the optimizer's groups, and the base rates of the schedulers."""
        for group in self.trainer.optimizer.param_groups:
            for key in ("lr", "initial_lr"):
                if key in group:
                    group[key] *= factor
        for scheduler in self.schedulers:
            scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]

    def log(self, scalars: Mapping[str, float]) -> None:
        """Give numbers to the storage, of which every writer takes what it wants."""
        self.trainer.storage.put_scalars(**scalars, smoothing_hint=False)

    def plot(self, scalars: Mapping[str, float], step: int | None = None) -> None:
        """Give numbers to the storage, which counts iterations itself, unless the log of this one has them."""
        storage = self.trainer.storage
        logged = {name for name, (_, iteration) in storage.latest().items() if iteration == storage.iter}
        self.log({name: value for name, value in scalars.items() if name not in logged})

    def info(self, message: str) -> None:
        """Write a line of the log."""
        logger.info(message)

    def warn(self, message: str) -> None:
        """Write a warning."""
        logger.warning(message)

    def newest_loss(self) -> float | None:
        """Return the newest loss that Detectron2 has read, on the first rank, unless it was returned before."""
        loss, iteration = self.trainer.storage.latest().get("total_loss", (None, None))
        if iteration == self._loss_at:
            return None
        self._loss_at = iteration
        return loss

    weights_key = "model"

    @property
    def tested_models(self) -> list[nn.Module]:
        """The model alone: what an average is tested with lies in its own file."""
        return [self.model]

    def metric_names(self) -> MetricNames:
        """Return what the evaluators give, if the trainer is ours: others do not say."""
        names = getattr(self.trainer, "metric_names", None)
        return MetricNames(()) if names is None else names()

    def stop(self, reason: str) -> None:
        """Leave it to the hook, which can end the training before an iteration alone."""
        self.stop_reason = reason
