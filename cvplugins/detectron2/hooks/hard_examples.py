"""HardExampleMiningHook: find the images with the largest losses, and draw them more often."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.utils import comm

from cvplugins.detectron2.models.model_losses import named_losses
from cvplugins.errors import UserError
from cvplugins.monitors import HardExampleMonitor, HardExamplePlan

from .plugin_hook import MonitorHook

__all__ = ["HardExampleMiningHook"]


class HardExampleMiningHook(MonitorHook):
    """Detectron2's :class:`cvplugins.monitors.HardExampleMonitor`.

    The loader has to be that of CvpluginsTrainer, whose ``sampler`` is replaced by one around it, and whose order
    without hard images stays. Detectron2's own hands its sampler to its workers, out of reach.

    Args:
        ratio: Part of the draws that are hard, in [0, 1]; 0 lists only.
        max_repeats: How often a hard image is drawn in a pass over the data at most.
        accumulate: Batches of an iteration.
    """

    monitor_type = HardExampleMonitor

    def __init__(
        self,
        *arguments: Any,
        ratio: float = 0.25,
        max_repeats: float = 10,
        accumulate: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.plan = HardExamplePlan(ratio, max_repeats)
        self.accumulate = accumulate

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Return the output folder, and how many batches an iteration has."""
        accumulate = cfg.CVPLUGINS.get("TRAIN", {}).get("ACCUMULATE", 1)
        return {**super().from_config(cfg), "accumulate": accumulate}

    def begin(self) -> None:
        """Learn the images' names, put the sampler into ours, and take up where a resumed run stopped."""
        loader = self.trainer.data_loader
        if not all(hasattr(loader, name) for name in ("sampler", "images", "batch_size", "num_workers", "seed")):
            raise UserError(
                f"HardExampleMiningHook: {type(loader).__name__} gives its sampler away; train with CvpluginsTrainer"
            )
        records = loader.images._dataset  # of Detectron2's MapDataset
        names = [str(records[index]["file_name"]) for index in range(len(records))]
        # DataLoader fetches two batches a worker ahead; some images wait for a batch of their shape.
        fetched = math.ceil((2 * loader.num_workers + 2) / self.accumulate)
        self.monitor.know(names, "file_name", self.plan, fetched)
        super().begin()
        loader.sampler = _Mixed(loader, self.plan, self.monitor.interval * self.accumulate * loader.batch_size)
        # Before NonFiniteGuardHook puts 0 in the place of what is not finite
        self._handles += (self.model.register_forward_hook(self._observe, prepend=True),)

    def _observe(self, model: torch.nn.Module, args: tuple[Any, ...], losses: Any) -> None:
        if model.training and torch.is_grad_enabled():
            named = named_losses(losses)
            indices = self.monitor.indices([str(record["file_name"]) for record in args[0]])
            self.monitor.observe(indices, {**named, "loss": torch.stack(list(named.values())).sum()})


class _Mixed:
    """A rank's endless indices with hard images in the place of some."""

    def __init__(self, loader: Any, plan: HardExamplePlan, part_length: int) -> None:
        self.indices, self.size, self.seed = loader.sampler, len(loader.images), loader.seed
        self.plan, self.part_length = plan, part_length

    def __iter__(self) -> Iterator[int]:
        place = comm.get_rank(), comm.get_world_size()
        return self.plan.stream(self.indices, self.part_length, self.size, self.seed, *place)
