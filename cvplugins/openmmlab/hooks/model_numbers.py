"""ModelNumbersHook: what a model counts outside of its state_dict goes into the checkpoint, too."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.utils import ManagerMixin
from torch import Tensor

from cvplugins.distributed import gather_objects, is_distributed
from cvplugins.model_numbers import ModelNumbers
from cvplugins.registry import HOOKS

from .accumulated_gradients import accumulated_gradients, put_gradients

__all__ = ["NOT_OF_THE_MODEL", "ModelNumbersHook"]

NOT_OF_THE_MODEL = (ManagerMixin,)  # loggers, visualizers and message hubs that a module may hold


@HOOKS.register_module()
class ModelNumbersHook(Hook):
    """Save the numbers that a model holds as attributes, and restore them when a run is resumed.

    Such as the thresholds and histories of Dynamic R-CNN, the sample counts of DDOD, DropBlock's iterations, the input
    size of ``BatchSyncRandomResize``. See :class:`cvplugins.model_numbers.ModelNumbers`. Each rank gets its own
    back; one that an earlier run did not have gets the first one's. A checkpoint between two steps of an optimizer that
    accumulates gradients also holds these.
    """

    priority = "LOW"  # when others have changed the model, and before CheckpointHook
    checkpoint_key = "cvplugins_model_numbers"
    gradients_key = "cvplugins_accumulated_gradients"

    def __init__(self) -> None:
        self._numbers: ModelNumbers | None = None
        self._gathered: list[dict[str, Any]] = []
        self._gradients: dict[str, Tensor] = {}

    def after_load_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Restore the numbers when a run is resumed."""
        numbers = self._begin(runner)
        if runner._resume and self.checkpoint_key in checkpoint:
            numbers.restore_own(checkpoint[self.checkpoint_key])
        if runner._resume:
            put_gradients(runner, checkpoint.get(self.gradients_key, {}))

    def before_train(self, runner) -> None:
        """Remember what the constructors gave."""
        self._begin(runner)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Gather the numbers of all ranks before a checkpoint that counts iterations; only the first rank saves."""
        hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and not hook.by_epoch]
        is_due = any(hook.interval > 0 and self.every_n_train_iters(runner, hook.interval) for hook in hooks)
        if hooks and (is_due or self.is_last_train_iter(runner)):
            self._gather(runner)

    def after_train_epoch(self, runner) -> None:
        """Gather the numbers of all ranks before a checkpoint that counts epochs."""
        self._gather(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict[str, Any]) -> None:
        """Store the numbers, if training has changed any."""
        if not is_distributed():
            self._gather(runner)
        if any(self._gathered):
            checkpoint[self.checkpoint_key] = self._gathered
        if self._gradients and "optimizer" in checkpoint:  # the best checkpoint is not resumed
            checkpoint[self.gradients_key] = self._gradients

    def _begin(self, runner) -> ModelNumbers:
        if self._numbers is None:
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            self._numbers = ModelNumbers(model, NOT_OF_THE_MODEL)
        return self._numbers

    def _gather(self, runner) -> None:
        self._gathered = gather_objects(self._numbers.changed() if self._numbers is not None else {})
        self._gradients = accumulated_gradients(runner)
