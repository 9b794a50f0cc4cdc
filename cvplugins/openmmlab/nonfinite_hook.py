"""Stop, skip or roll back when something is NaN or infinite, and save the iteration so that it can be replayed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop
from torch import Tensor
from torch.optim import Optimizer

from cvplugins.distributed import rank
from cvplugins.errors import first_line
from cvplugins.monitors import Fault, NonFiniteError, NonFiniteGuard, ReplayWriter, first_nonfinite_layer
from cvplugins.monitors.batch_images import image_names, image_tensors
from cvplugins.registry import HOOKS

from .monitor_hook import MonitorHook, optim_wrappers
from .replay import loss_components, run_forward

__all__ = ["NonFiniteGuardHook"]


@HOOKS.register_module()
class NonFiniteGuardHook(MonitorHook):
    """Guard every step against NaN and infinity; see :class:`cvplugins.monitors.NonFiniteGuard`.

    A bad iteration never reaches the weights: the gradients are dropped in the optimizer's step, and the batch norms
    get their statistics back. The log says which parameter, layer, loss component, statistic and images; the file
    ``replay/iter_N_rankR.pt`` in the work dir repeats the iteration with ``cvplugins replay``. Steps that AMP's
    GradScaler skips are no fault, but a loss that is not finite is. All ranks decide alike. With gradient
    accumulation every iteration is guarded, and a bad one drops what was accumulated before it. A step that makes the
    weights themselves overflow is found in the next iteration, and in any case before a checkpoint, a validation or
    the end. A rollback takes the average of ``EMAHook`` along.

    Args:
        policy: ``"raise"``, ``"skip"`` or ``"rollback"``.
        max_skips: So many bad iterations in a row are skipped; the next one raises.
        max_rollbacks: So many rollbacks are made in a run; the next one raises.
        lr_factor: What a rollback multiplies the learning rates by.
        snapshot_interval: Iterations between the snapshots that ``"rollback"`` goes back to.
        max_replays: Replay files that a run writes at most, 0 for none. Each is as large as a checkpoint.
        find_layer: Whether to run the forward pass of a bad iteration again, to name the first layer whose output is
            not finite. All ranks do it together, because a model's forward pass may talk to other ranks.
    """

    priority = "HIGH"  # before EMA and checkpoints, and after IterationSeedHook
    checkpoint_key = "cvplugins_nonfinite_guard"

    def __init__(
        self,
        policy: str = "raise",
        max_skips: int = 5,
        max_rollbacks: int = 3,
        lr_factor: float = 0.5,
        snapshot_interval: int = 500,
        max_replays: int = 3,
        find_layer: bool = True,
    ) -> None:
        self.monitor = NonFiniteGuard(policy, max_skips, max_rollbacks, lr_factor, snapshot_interval)
        self.find_layer = find_layer
        self._replays = ReplayWriter(self.monitor, "openmmlab", max_replays)
        self._handles: list[Any] = []

    def before_train(self, runner) -> None:
        """Register with the model, which computes the losses, and with every optimizer."""
        self._model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._wrappers = list(optim_wrappers(runner).values())
        self._batch, self._is_observed = None, False
        self._losses: dict[str, Any] = {}
        self._handles = [self._model.register_forward_hook(self._keep_losses, with_kwargs=True)]
        self._averages = [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)]
        for optimizer in self._optimizers:
            self._handles.append(optimizer.register_step_pre_hook(lambda optimizer, *_: self._guard(runner, optimizer)))
        self._snapshot(runner, force=True)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Remember what the iteration starts from."""
        self._batch, self._losses, self._is_observed = data_batch, {}, False
        self.monitor.begin(self._model)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Guard an iteration without a step: one that only accumulates, or whose step AMP skipped.

        A step that made the weights overflow is found in the next iteration, but before they are validated or saved.
        """
        if not self._is_observed or self._is_used_next(runner):
            self._guard(runner, None)
        self._batch, self._losses = None, {}
        _leave_out_of_means(runner)

    def after_train_epoch(self, runner) -> None:
        """Look at the weights before they are validated and saved."""
        self._guard(runner, None)

    def after_train(self, runner) -> None:
        """Leave model and optimizers as they were."""
        for handle in self._handles:
            handle.remove()

    @property
    def _optimizers(self) -> list[Optimizer]:
        return [wrapper.optimizer for wrapper in self._wrappers]  # OptimizerSwitchHook changes them

    def _snapshot(self, runner, force: bool = False) -> None:
        self.monitor.snapshot(self._model, self._optimizers, runner.iter, force, self._averages)

    def _is_used_next(self, runner) -> bool:
        hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and not hook.by_epoch]
        intervals = [hook.interval for hook in hooks if hook.interval > 0]
        if isinstance(runner.train_loop, IterBasedTrainLoop) and runner.val_loop is not None:
            intervals.append(runner.train_loop.val_interval)
        is_due = any(self.every_n_train_iters(runner, interval) for interval in intervals)
        return is_due or self.is_last_train_iter(runner)

    def _keep_losses(self, model, args, kwargs, output) -> None:
        if kwargs.get("mode") == "loss" and isinstance(output, Mapping) and torch.is_grad_enabled():
            # A model may be called several times an iteration, as in adversarial training.
            self._losses.update({name: _detached(value) for name, value in loss_components(output).items()})

    def _guard(self, runner, optimizer: Optimizer | None) -> None:
        """Observe this iteration, and undo it if it is bad; ``optimizer`` is about to step, None if none does."""
        self._is_observed = True
        # Scaled gradients may overflow. Where a GradScaler lets an optimizer step, they are unscaled and finite.
        is_scaled = optimizer is None and any(hasattr(wrapper, "loss_scaler") for wrapper in self._wrappers)
        report = self.monitor.observe(
            self._model,
            self._losses,
            runner.iter,
            images=image_names(self._batch),
            inputs=image_tensors(self._batch),
            gradients=not is_scaled,
            step_is_void=getattr(optimizer, "found_inf", None),
        )
        if report is None:
            self._snapshot(runner)
            return
        if self.monitor.is_answered(report):
            self._drop()
            return
        layer = self._first_layer(runner) if self.find_layer else None
        message = str(report) if layer is None else f"{report}; first layer: {layer.name} ({layer.detail})"
        if rank() in report.culprits:
            message += self._replays.save(
                Path(runner.work_dir, "replay"),
                report,
                layer,
                self._model,
                self._optimizers,
                self._batch,
                autocast=_autocast(self._wrappers[0], self._model),
                config=_dumped_config(runner),
            )
        self._drop()
        try:
            action = self.monitor.decide(report)
        except NonFiniteError as error:
            runner.logger.error(message)
            raise NonFiniteError(f"{error}{message.removeprefix(str(report))}") from None
        if action == "rollback":
            start = self.monitor.roll_back(self._model, self._optimizers, self._averages)
            self._lower_learning_rates(runner)
            runner.logger.warning(f"{message}; rolled back to iteration {start} (rollback {self.monitor.rollbacks})")
        else:
            runner.logger.warning(f"{message}; skipped (number {self.monitor.skips_in_a_row} in a row)")
        counts = {"nonfinite/skips": self.monitor.skips, "nonfinite/rollbacks": self.monitor.rollbacks}
        runner.visualizer.add_scalars(counts, step=runner.iter)

    def _drop(self) -> None:
        """Forget the iteration; a second look at it is at the weights."""
        for each in self._optimizers:
            each.zero_grad(set_to_none=True)  # an optimizer leaves a parameter without gradient alone
        self.monitor.undo_forward(self._model)
        self._losses = {}

    def _first_layer(self, runner) -> Fault | None:
        if self._batch is None:
            return None
        self.monitor.undo_forward(self._model)

        def forward() -> None:
            with self._wrappers[0].optim_context(self._model):
                run_forward(self._model, self._batch)

        try:
            return first_nonfinite_layer(self._model, forward, self.monitor.random)
        except Exception as error:  # whatever fails here must not hide the fault
            runner.logger.warning(f"the first layer is not known: {type(error).__name__}: {first_line(error)}")
            return None

    def _lower_learning_rates(self, runner) -> None:
        for wrapper in self._wrappers:
            for group in wrapper.param_groups:
                for key in ("lr", "initial_lr"):
                    if key in group:
                        group[key] *= self.monitor.lr_factor
        for scheduler in _flat(runner.param_schedulers):
            if scheduler.param_name == "lr":
                scheduler.base_values = [value * self.monitor.lr_factor for value in scheduler.base_values]


def _leave_out_of_means(runner) -> None:
    """Let what is not finite of this iteration not count in the log's means, for the rest of their window.

    RuntimeInfoHook has put it into the histories of the message hub by now; a mean there is a sum over counts.
    """
    for name, history in runner.message_hub.log_scalars.items():
        if name.startswith("train/") and re.search(runner.log_processor.mean_pattern, name):
            values, counts = history.data
            if len(values) and not math.isfinite(values[-1]):
                values[-1] = counts[-1] = 0


def _dumped_config(runner) -> str:
    """Return the name by which mmengine/runner/runner.py (0.10.12, dump_config) wrote the config to the work dir."""
    return Path(runner.cfg.filename).name if runner.cfg.filename else f"{runner.timestamp}.py"


def _flat(value: Any) -> Iterator[Any]:
    """Yield the schedulers; several optimizers have a dict of lists of them."""
    if isinstance(value, (list, Mapping)):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _flat(each)
    elif value is not None:
        yield value


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else [each.detach() for each in value]


def _autocast(wrapper: OptimWrapper, model: torch.nn.Module) -> tuple[str, str] | None:
    if not hasattr(wrapper, "loss_scaler"):
        return None
    device = next(model.parameters()).device.type
    dtype = wrapper.cast_dtype or (torch.bfloat16 if device == "cpu" else torch.float16)
    return device, str(dtype).removeprefix("torch.")
