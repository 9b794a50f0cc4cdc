"""The ports between a training and its monitors: a run, a step of an optimizer, and the life of a monitor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .metric_names import MetricNames

__all__ = ["Monitor", "Run", "Step", "watch_steps"]


class Run(Protocol):
    """A training, as a monitor sees it; each framework's adapter implements it once."""

    @property
    def model(self) -> nn.Module:
        """The model, not wrapped."""

    @property
    def optimizers(self) -> Mapping[str, Optimizer]:
        """The optimizers by the parts of the model that they train, ``""`` for the only one."""

    @property
    def iteration(self) -> int:
        """The current iteration, counted from 0; how many are done outside of one."""

    @property
    def framework(self) -> str:
        """Name of the adapter that can build the run's model again."""

    @property
    def work_dir(self) -> Path:
        """Where the run keeps its checkpoints and its config."""

    @property
    def log_dir(self) -> Path:
        """Where the run writes its log."""

    @property
    def config_name(self) -> str | None:
        """Name of the config's file in :attr:`work_dir`."""

    @property
    def averages(self) -> Sequence[Any]:
        """Averages of the weights, which have a state; what breaks the weights breaks them too."""

    @property
    def autocast(self) -> tuple[str, str] | None:
        """Device and dtype of mixed precision, such as ``("cuda", "float16")``; None without."""

    @property
    def is_scaled(self) -> bool:
        """Whether gradients outside of a step are multiplied by a loss scale, so that they may overflow."""

    def scale_learning_rates(self, factor: float) -> None:
        """Multiply the learning rates, now and in the schedule to come."""

    def log(self, scalars: Mapping[str, float]) -> None:
        """Show numbers in the next line of the log."""

    def plot(self, scalars: Mapping[str, float], step: int | None = None) -> None:
        """Hand numbers to the backends that draw curves, at the current iteration if ``step`` is None."""

    def info(self, message: str) -> None:
        """Write a line of the log."""

    def warn(self, message: str) -> None:
        """Write a warning."""

    def newest_loss(self) -> float | None:
        """Return the newest loss that the framework has read from the device, None if it was returned before."""

    @property
    def weights_key(self) -> str:
        """Under which a checkpoint of the framework holds the weights."""

    @property
    def tested_models(self) -> Sequence[nn.Module]:
        """The model, and an average of its weights that takes its place in tests."""

    def metric_names(self) -> MetricNames:
        """Return the names of the numbers that evaluations can give, as far as they are known."""

    def stop(self, reason: str) -> None:
        """End the training before the next iteration."""

    def ends_interval(self, interval: int) -> bool:
        """Return whether the current iteration is the last of so many."""
        return (self.iteration + 1) % interval == 0


@dataclass(frozen=True)
class Step:
    """A step that an optimizer is about to take, or has taken.

    GradScaler unscales gradients before a step and leaves out one whose gradients overflow. It hands both to a fused
    optimizer instead (torch/amp/grad_scaler.py, step), which is therefore called for a step that it skips.

    Attributes:
        optimizer: Whose step.
        part: The part of the model that it trains, as in :attr:`Run.optimizers`.
    """

    optimizer: Optimizer
    part: str = ""

    @property
    def parameters(self) -> list[Tensor]:
        """The optimizer's parameters."""
        return [value for group in self.optimizer.param_groups for value in group["params"]]

    @property
    def gradient_scale(self) -> Tensor | None:
        """What the gradients are still multiplied by; None if they are not."""
        return getattr(self.optimizer, "grad_scale", None)

    @property
    def overflow(self) -> Tensor | None:
        """Above 0 if the optimizer skips the step; None if it does not. A number on the device."""
        return getattr(self.optimizer, "found_inf", None)

    @torch.no_grad()
    def unscale(self) -> None:
        """Divide gradients that are still scaled, as ``GradScaler.unscale_`` does before other optimizers' steps."""
        scale = self.gradient_scale
        if scale is None:
            return
        for value in self.parameters:
            if value.grad is not None:
                value.grad.div_(scale.to(value.grad.device, non_blocking=True))
        self.optimizer.grad_scale = None  # type: ignore[attr-defined]

    def is_void(self) -> bool:
        """Return whether the optimizer skips the step; reads the device if a fused one might."""
        return self.overflow is not None and bool(self.overflow.item())


class Monitor:
    """A plugin of a training without a framework: options, behaviour, state and words.

    The hook of a framework makes it from its options, calls its events and keeps its state in the checkpoint. All
    methods may be left out.

    Raises:
        ValueError: From the constructor for an option out of its range, from :meth:`begin` for one that does not fit
            the run.
    """

    def begin(self, run: Run) -> None:
        """Come before the first iteration, after a checkpoint was loaded."""

    def before_iteration(self, run: Run) -> None:
        """Come before the forward pass, in training."""

    def before_step(self, run: Run, step: Step) -> None:
        """Come between the backward pass and a step."""

    def after_step(self, run: Run, step: Step) -> None:
        """Come right after a step."""

    def after_iteration(self, run: Run) -> None:
        """Come at the end of an iteration."""

    def finish(self, run: Run) -> None:
        """Come after the last iteration."""

    def release(self, run: Run) -> None:
        """Leave the model as it was; after :meth:`finish`, and after a failure where the framework tells of it."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run has to know."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""


def watch_steps(run: Run, monitor: Monitor) -> list[Any]:
    """Have a monitor's ``before_step`` and ``after_step`` called, if it has any, by every optimizer of a run.

    Returns:
        Handles whose ``remove()`` ends it.
    """
    handles = []
    for part, optimizer in run.optimizers.items():
        # The optimizer that calls may be another later on: hooks move along when one follows another.
        if type(monitor).before_step is not Monitor.before_step:
            handles.append(
                optimizer.register_step_pre_hook(lambda own, *_, part=part: monitor.before_step(run, Step(own, part)))
            )
        if type(monitor).after_step is not Monitor.after_step:
            handles.append(
                optimizer.register_step_post_hook(lambda own, *_, part=part: monitor.after_step(run, Step(own, part)))
            )
    return handles
