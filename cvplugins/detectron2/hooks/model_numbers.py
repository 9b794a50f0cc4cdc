"""Hook: what a model counts outside of its state_dict goes into the checkpoint, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.engine import HookBase
from detectron2.engine.hooks import PeriodicCheckpointer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cvplugins.distributed import gather_objects, is_distributed
from cvplugins.model_numbers import ModelNumbers

__all__ = ["ModelNumbersHook"]


class ModelNumbersHook(HookBase):
    """Save the numbers that a model holds as attributes, and restore them when a run is resumed.

    Such as the running mean by which RetinaNet and FCOS divide their losses. See
    :class:`cvplugins.model_numbers.ModelNumbers`. Each rank gets its own back; one that an earlier run did not have
    gets the first one's.

    Args:
        model: As it was built, before a checkpoint is loaded; may be wrapped in DistributedDataParallel.
    """

    def __init__(self, model: nn.Module) -> None:
        self._numbers = ModelNumbers(model.module if isinstance(model, DistributedDataParallel) else model)
        self._gathered: list[dict[str, Any]] = []

    def before_train(self) -> None:
        """Ask the first rank, which alone has the hook that saves, when that is."""
        own = [hook.period for hook in self.trainer._hooks if isinstance(hook, PeriodicCheckpointer)]
        self._periods = [period for period in gather_objects(own)[0] if period > 0]

    def after_step(self) -> None:
        """Gather the numbers of all ranks before a checkpoint."""
        done = self.trainer.iter + 1
        if is_distributed() and (done == self.trainer.max_iter or any(done % each == 0 for each in self._periods)):
            self._gathered = gather_objects(self._numbers.changed())

    def state_dict(self) -> dict[str, Any]:
        """Return the numbers of all ranks; nothing if training has changed none."""
        of_ranks = self._gathered if is_distributed() else [self._numbers.changed()]
        return {"of_ranks": of_ranks} if any(of_ranks) else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore this rank's numbers when a run is resumed."""
        self._numbers.restore_own(state["of_ranks"])
