"""Hook: stop, skip or roll back when something is NaN or infinite, and save the iteration for a replay."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer
from detectron2.utils.events import EventStorage
from torch import Tensor
from torch.optim import Optimizer

from cvplugins.distributed import gather_objects, rank
from cvplugins.errors import first_line
from cvplugins.monitors import Fault, NonFiniteError, NonFiniteGuard, ReplayWriter, WeightAverage, first_nonfinite_layer
from cvplugins.monitors.batch_images import image_names, image_tensors

from .model_losses import forward_without_raising, named_losses, summed_losses
from .plugin_hook import PluginHook, logger, plugin_hooks

__all__ = ["NonFiniteGuardHook"]


class NonFiniteGuardHook(PluginHook):
    """Guard every step against NaN and infinity; see :class:`cvplugins.monitors.NonFiniteGuard`.

    A bad iteration never reaches the weights: the gradients are dropped in the optimizer's step, and the batch norms
    get their statistics back. The log says which parameter, layer, loss component, statistic and images; the file
    ``replay/iter_N_rankR.pt`` in the output folder repeats the iteration with ``cvplugins replay``. Steps that AMP's
    GradScaler skips are no fault, but a loss that is not finite is. All ranks decide alike. A step that makes the
    weights themselves overflow is found in the next iteration, and in any case before a checkpoint or an evaluation. A
    rollback takes the average of ``EMAHook`` along.

    A model that raises ``FloatingPointError`` itself, as one with an RPN does when proposals are not finite, gets NaN
    for its losses, and the iteration is answered like any other.

    Detectron2's own check raises before the step, on the first rank alone, which leaves the others waiting. It does not
    see what is not finite here: in the losses that the trainer gets, 0 stands for it.

    Args:
        policy: ``"raise"``, ``"skip"`` or ``"rollback"``.
        max_skips: So many bad iterations in a row are skipped; the next one raises.
        max_rollbacks: So many rollbacks are made in a run; the next one raises.
        lr_factor: What a rollback multiplies the learning rates by.
        snapshot_interval: Iterations between the snapshots that ``"rollback"`` goes back to.
        max_replays: Replay files that a run writes at most, 0 for none. Each is as large as a checkpoint.
        find_layer: Whether to run the forward pass of a bad iteration again, to name the first layer whose output is
            not finite. All ranks do it together, because a model's forward pass may talk to other ranks.
        output_dir: Where the run writes its files and its ``config.yaml``.

    Raises:
        ValueError: An option is out of its range.
    """

    priority = 30  # before gradients are clipped or judged

    def __init__(
        self,
        policy: str = "raise",
        max_skips: int = 5,
        max_rollbacks: int = 3,
        lr_factor: float = 0.5,
        snapshot_interval: int = 500,
        max_replays: int = 3,
        find_layer: bool = True,
        output_dir: str = ".",
    ) -> None:
        self.monitor = NonFiniteGuard(policy, max_skips, max_rollbacks, lr_factor, snapshot_interval)
        self.find_layer = find_layer
        self.folder = Path(output_dir, "replay")
        self._replays = ReplayWriter(self.monitor, "detectron2", max_replays)
        self._batches: list[Any] = []  # several where a trainer accumulates gradients
        self._losses: dict[str, Tensor] = {}
        self._is_observed = False

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Return the output folder."""
        return {**super().from_config(cfg), "output_dir": cfg.OUTPUT_DIR}

    def begin(self) -> None:
        """Watch the model, which computes the losses, and the steps."""
        self.model.forward = forward_without_raising(self.model)
        self._handles += (self.model.register_forward_hook(self._keep_losses),)
        self.watch_steps(before=self._guard)
        self._is_first = True
        # Only the first rank has the hook that saves.
        own = [hook.period for hook in self.trainer._hooks if isinstance(hook, PeriodicCheckpointer)]
        evaluations = [hook._period for hook in self.trainer._hooks if isinstance(hook, EvalHook)]
        self._periods = [period for period in gather_objects(own)[0] + evaluations if period > 0]

    def release(self) -> None:
        """Give the model its own ``forward`` back."""
        vars(self.model).pop("forward", None)

    def before_step(self) -> None:
        """Remember what the iteration starts from."""
        self._batches, self._losses, self._is_observed = [], {}, False
        self.monitor.begin(self.model)
        if self._is_first:  # when all hooks have begun
            self.monitor.snapshot(self.model, self._optimizers, self.trainer.iter, True, self._averages)
            self._is_first = False

    def after_step(self) -> None:
        """Guard an iteration without a step: one that only accumulates, or whose step AMP skipped.

        A step that made the weights overflow is found in the next iteration, but before they are saved or evaluated.
        """
        done = self.trainer.iter + 1
        if not self._is_observed or done == self.trainer.max_iter or any(done % each == 0 for each in self._periods):
            self._guard(None)
        self._batches, self._losses = [], {}

    @property
    def _optimizers(self) -> list[Optimizer]:
        return [self.trainer.optimizer]

    @property
    def _averages(self) -> list[WeightAverage]:
        hooks = [hook for hook in plugin_hooks(self.trainer) if isinstance(hook.monitor, WeightAverage)]
        return [hook.monitor for hook in hooks]

    def _keep_losses(self, model: torch.nn.Module, args: tuple[Any, ...], losses: Any) -> Any:
        """Keep the losses, and return them with 0 in the place of what is not finite."""
        if not (model.training and torch.is_grad_enabled()):
            return None
        self._batches.append(args[0])
        named = named_losses(losses)
        detached = {name: value.detach() for name, value in named.items()}
        self._losses = summed_losses([self._losses, detached])
        finite = {name: torch.where(value.isfinite(), value, 0) for name, value in named.items()}
        return finite if isinstance(losses, Mapping) else finite["total_loss"]

    def _guard(self, optimizer: Optimizer | None) -> None:
        """Observe this iteration, and undo it if it is bad; ``optimizer`` is about to step, None if none does."""
        self._is_observed = True
        iteration = self.trainer.iter
        # Scaled gradients may overflow. Where a GradScaler lets an optimizer step, they are unscaled and finite.
        is_scaled = optimizer is None and self.grad_scaler is not None
        report = self.monitor.observe(
            self.model,
            self._losses,
            iteration,
            images=[name for batch in self._batches for name in image_names(batch)],
            inputs={name: image for batch in self._batches for name, image in image_tensors(batch).items()},
            gradients=not is_scaled,
            step_is_void=getattr(optimizer, "found_inf", None),
        )
        if report is None:
            self.monitor.snapshot(self.model, self._optimizers, iteration, averages=self._averages)
            return
        layer = self._first_layer() if self.find_layer else None
        message = str(report) if layer is None else f"{report}; first layer: {layer.name} ({layer.detail})"
        if rank() in report.culprits:
            message += self._replays.save(
                self.folder,
                report,
                layer,
                self.model,
                self._optimizers,
                self._batches,
                autocast=self._autocast,
                config="config.yaml",  # as detectron2/engine/defaults.py (default_setup) names it
            )
        for each in self._optimizers:
            each.zero_grad(set_to_none=True)  # an optimizer leaves a parameter without gradient alone
        self.monitor.undo_forward(self.model)
        self._losses = {}  # answered: a second look in this iteration is at the weights
        try:
            action = self.monitor.decide(report)
        except NonFiniteError as error:
            raise NonFiniteError(f"{error}{message.removeprefix(str(report))}") from None
        if action == "rollback":
            start = self.monitor.roll_back(self.model, self._optimizers, self._averages)
            self._lower_learning_rates()
            logger.warning("%s; rolled back to iteration %d (rollback %d)", message, start, self.monitor.rollbacks)
        else:
            logger.warning("%s; skipped (number %d in a row)", message, self.monitor.skips_in_a_row)
        counts = {"nonfinite/skips": self.monitor.skips, "nonfinite/rollbacks": self.monitor.rollbacks}
        self.trainer.storage.put_scalars(**counts, smoothing_hint=False)

    @property
    def _autocast(self) -> tuple[str, str] | None:
        """Device and dtype of AMPTrainer, which casts on a GPU only, and even if its GradScaler is off."""
        precision = getattr(getattr(self.trainer, "_trainer", self.trainer), "precision", None)
        is_on_gpu = next(self.model.parameters()).is_cuda
        return ("cuda", str(precision).removeprefix("torch.")) if is_on_gpu and precision is not None else None

    def _first_layer(self) -> Fault | None:
        if not self._batches:
            return None
        self.monitor.undo_forward(self.model)
        batches = list(self._batches)
        device, dtype = self._autocast or ("cpu", "bfloat16")

        def forward() -> None:
            # In a storage of its own, so that nothing is logged twice.
            enabled = self._autocast is not None
            precision = torch.autocast(device, getattr(torch, dtype), enabled=enabled)
            with EventStorage(self.trainer.iter), precision, suppress(FloatingPointError):  # of the RPN, further behind
                for batch in batches:
                    self.model(batch)

        try:
            return first_nonfinite_layer(self.model, forward, self.monitor.random)
        except Exception as error:  # whatever fails here must not hide the fault
            logger.warning("the first layer is not known: %s: %s", type(error).__name__, first_line(error))
            return None

    def _lower_learning_rates(self) -> None:
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                for key in ("lr", "initial_lr"):
                    if key in group:
                        group[key] *= self.monitor.lr_factor
        for scheduler in self.schedulers:
            scheduler.base_lrs = [rate * self.monitor.lr_factor for rate in scheduler.base_lrs]
