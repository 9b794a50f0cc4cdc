"""LayerFreezeHook: layers frozen for a while, and learning rates by layer."""

from __future__ import annotations

from typing import Any

from torch.nn.parallel import DistributedDataParallel

from cvplugins.errors import UserError
from cvplugins.monitors import LayerFreezeMonitor

from .monitored_run import TrainerRun
from .plugin_hook import MonitorHook

__all__ = ["LayerFreezeHook"]


class LayerFreezeHook(MonitorHook):
    """Detectron2's :class:`cvplugins.monitors.LayerFreezeMonitor`.

    In distributed runs the model is wrapped in DDP anew, with ``find_unused_parameters``: the wrapper that Detectron2
    made would wait for the gradients of frozen layers.
    """

    priority = 40  # before hooks that look at what trains
    monitor_type = LayerFreezeMonitor
    _is_split = False

    def begin(self) -> None:
        """Find the layers, and split the optimizer's groups of a new run."""
        super().begin()
        try:
            origins = self._split()
        except ValueError as error:
            raise UserError(f"LayerFreezeHook: {error}") from error
        for scheduler in self.schedulers if origins else ():
            scheduler.base_lrs = [scheduler.base_lrs[index] * factor for index, factor in origins]
        wrapper = self.trainer.model
        if isinstance(wrapper, DistributedDataParallel) and self.monitor.rules and not wrapper.find_unused_parameters:
            self.trainer.model = DistributedDataParallel(
                wrapper.module,
                device_ids=wrapper.device_ids,
                broadcast_buffers=wrapper.broadcast_buffers,
                find_unused_parameters=True,
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the factors, so that a resumed run splits the optimizer's groups before it loads their state."""
        return {"lr_factors": self.monitor.lr_factors} if self.monitor.lr_factors else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Split the optimizer's groups; the schedulers' rates are restored by Detectron2's own hook."""
        if state["lr_factors"] != self.monitor.lr_factors:
            raise UserError(
                f"LayerFreezeHook: lr_factors are {self.monitor.lr_factors}, but the run that is resumed has "
                f"{state['lr_factors']}; give the same"
            )
        self._split()

    def _split(self) -> list[tuple[int, float]]:
        if not self.monitor.lr_factors or self._is_split:
            return []
        self._is_split = True
        return self.monitor.split(TrainerRun(self.trainer), self.trainer.optimizer, self.model)
