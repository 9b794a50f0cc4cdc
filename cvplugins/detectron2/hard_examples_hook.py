"""Hook: find the images with the largest losses, and draw them more often."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from torch import Tensor

from cvplugins.distributed import rank
from cvplugins.errors import UserError
from cvplugins.monitors import HardExamplePlan, HardExamples

from .plugin_hook import PluginHook, logger

__all__ = ["HardExampleMiningHook"]


class HardExampleMiningHook(PluginHook):
    """Find the images that a model finds hardest, and let the loader draw them more often.

    See :class:`cvplugins.monitors.HardExamples`. Images are judged by the losses of their batches. Every ``interval``
    iterations the hardest are found anew, the same on all ranks, and drawn in the interval after the next, because the
    loader's workers have fetched much of the next one already. They lie in ``hard_examples.json`` in the output
    folder: look at it, because wrong labels are hard too.

    The loader has to be that of CvpluginsTrainer, whose ``sampler`` is replaced by one around it, and whose order
    without hard images stays. Detectron2's own hands its sampler to its workers, out of reach.

    Args:
        capacity: Images in the pool at most, at least 1.
        min_hardness: Images in the pool are harder than so many times the median image, at least 0.
        rate: How fast an estimate follows what is seen, in (0, 1].
        ratio: Part of the draws that are hard, in [0, 1]; 0 lists only.
        max_repeats: How often a hard image is drawn in a pass over the data at most.
        interval: Iterations between two pools, at least 1.
        loss: Which of the model's losses to go by; ``"loss"`` is their sum.
        accumulate: Batches of an iteration.
        output_dir: Where the list is written.

    Raises:
        ValueError: An option is out of its range.
    """

    def __init__(
        self,
        capacity: int = 256,
        min_hardness: float = 2.0,
        rate: float = 0.5,
        ratio: float = 0.25,
        max_repeats: float = 10,
        interval: int = 1000,
        loss: str = "loss",
        accumulate: int = 1,
        output_dir: str = ".",
    ) -> None:
        if interval < 1:
            raise ValueError(f"interval is {interval}; it must be at least 1")
        self.options: dict[str, Any] = {"capacity": capacity, "min_hardness": min_hardness, "rate": rate}
        HardExamples(1, **self.options)  # a wrong option is told at once
        self.plan = HardExamplePlan(ratio, max_repeats)
        self.interval, self.loss, self.accumulate = interval, loss, accumulate
        self.output_dir = output_dir
        self._resumed: dict[str, Any] | None = None

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Return the output folder, and how many batches an iteration has."""
        accumulate = cfg.CVPLUGINS.get("TRAIN", {}).get("ACCUMULATE", 1)
        return {**super().from_config(cfg), "output_dir": cfg.OUTPUT_DIR, "accumulate": accumulate}

    def begin(self) -> None:
        """Learn the images' names, put the sampler into ours, and take up where a resumed run stopped."""
        loader = self.trainer.data_loader
        if not all(hasattr(loader, name) for name in ("sampler", "images", "batch_size", "num_workers", "seed")):
            raise UserError(
                f"HardExampleMiningHook: {type(loader).__name__} gives its sampler away; train with CvpluginsTrainer"
            )
        # DataLoader fetches two batches a worker ahead; some images wait for a batch of their shape.
        least = math.ceil((2 * loader.num_workers + 2) / self.accumulate)
        if self.interval < least:
            raise UserError(
                f"HardExampleMiningHook: interval is {self.interval}; it must be at least {least}, because the "
                "workers of the loader fetch as much ahead"
            )
        records = loader.images._dataset  # of Detectron2's MapDataset
        self._names = [str(records[index]["file_name"]) for index in range(len(records))]
        self._index = {name: index for index, name in reversed(list(enumerate(self._names)))}  # the first of equals
        self.monitor = HardExamples(len(self._names), **self.options)
        if self._resumed is not None:
            self.monitor.load_state_dict(self._resumed["monitor"])
            self.plan.pools = {part: list(pool) for part, pool in self._resumed["pools"].items()}
        loader.sampler = _Mixed(loader, self.plan, self.interval * self.accumulate * loader.batch_size)
        # Before NonFiniteGuardHook puts 0 in the place of what is not finite
        self._handles += (self.model.register_forward_hook(self._observe, prepend=True),)

    def after_step(self) -> None:
        """Make the pool."""
        done = self.trainer.iter + 1
        if done % self.interval == 0:
            report = self.monitor.refresh()
            # All are kept: the loader of a resumed run draws from the beginning to find its place.
            self.plan.pools[done // self.interval + 1] = list(report.pool)
            self.trainer.storage.put_scalar("hard_examples", len(report.pool), smoothing_hint=False)
            if words := report.in_words(self._names):
                logger.info("hard examples: %s", words)
            if rank() == 0:
                report.write(Path(self.output_dir, "hard_examples.json"), self._names, "file_name", iteration=done)

    def state_dict(self) -> dict[str, Any]:
        """Return estimates and pools; of several ranks, what the first has observed since the last pool."""
        return {} if self.monitor is None else {"monitor": self.monitor.state_dict(), "pools": dict(self.plan.pools)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep the state until the data is known."""
        self._resumed = state

    def _observe(self, model: torch.nn.Module, args: tuple[Any, ...], losses: Any) -> None:
        if not (model.training and torch.is_grad_enabled()):
            return
        named: Mapping[str, Tensor] = losses if isinstance(losses, Mapping) else {"loss": losses}
        if self.loss != "loss" and self.loss not in named:
            raise UserError(f"HardExampleMiningHook: the model has no loss {self.loss!r}; it has {', '.join(named)}")
        loss = sum(named.values()) if self.loss == "loss" else named[self.loss]
        self.monitor.observe([self._index[str(record["file_name"])] for record in args[0]], loss)


class _Mixed:
    """A rank's endless indices with hard images in the place of some."""

    def __init__(self, loader: Any, plan: HardExamplePlan, part_length: int) -> None:
        self.indices, self.size, self.seed = loader.sampler, len(loader.images), loader.seed
        self.plan, self.part_length = plan, part_length

    def __iter__(self) -> Iterator[int]:
        place = comm.get_rank(), comm.get_world_size()
        return self.plan.stream(self.indices, self.part_length, self.size, self.seed, *place)
