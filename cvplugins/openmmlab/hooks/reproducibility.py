"""Randomness as a function of (seed, rank, iteration), so that a resumed run repeats the uninterrupted one.

mmengine saves no random state. Its loaders seed the workers alike in every epoch, and after resuming an
iteration-based run the workers start where the first run began.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from torch.utils.data import DataLoader

from cvplugins.randomness import DATA, MODEL, seed_everything
from cvplugins.registry import HOOKS

__all__ = ["IterationSeedHook", "SeededBatches", "start_again"]


class SeededBatches:
    """A collate function that seeds the generators of its worker before each batch, for any number of workers.

    Args:
        collate: The loader's own collate function.
        numbers: What every seed begins with.
        first: Iteration of the first batch.
        num_workers: The loader's; worker ``w`` gets the batches ``first + w``, ``first + w + num_workers`` ...
    """

    def __init__(self, collate: Callable[[list], Any], numbers: tuple[int, ...], first: int, num_workers: int) -> None:
        self.collate = collate
        self.numbers = numbers
        self.iteration = first
        self.step = max(num_workers, 1)

    def start_worker(self, worker_id: int) -> None:
        """Seed for the first batch of a worker; this is the loader's ``worker_init_fn``."""
        self.iteration += worker_id
        seed_everything(*self.numbers, self.iteration)

    def __call__(self, samples: list) -> Any:
        """Collate a batch and seed for the worker's next one."""
        batch = self.collate(samples)
        self.iteration += self.step
        seed_everything(*self.numbers, self.iteration)
        return batch


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seed augmentation and model before every iteration from the run's seed, the rank and the iteration.

    Augmentation, sampling of anchors and dropout then depend on the iteration alone and not on what ran before
    it nor on the number of workers, so that no random state has to be saved. The seed is the run's (``--seed``,
    or the one that mmengine drew and stored in the checkpoint). Workers have to start anew in every epoch:
    set ``train_dataloader.persistent_workers=False`` in epoch-based runs. Iteration-based runs repeat with an
    ``InfiniteSampler``.
    """

    priority = "VERY_HIGH"

    def before_train_epoch(self, runner) -> None:
        """Prepare the workers that are about to start, and this process where there are none."""
        loader: DataLoader = runner.train_dataloader
        collate = loader.collate_fn
        if isinstance(collate, SeededBatches):
            collate = collate.collate
        # Where a resumed iteration-based run cannot skip in the sampler, it loads again what it has seen.
        iterator = getattr(runner.train_loop, "dataloader_iterator", None)
        skips = hasattr(iterator, "skip_iter") and hasattr(loader.sampler, "skip")
        first = runner.iter if iterator is None or skips else 0
        self._batches = SeededBatches(collate, (runner.seed, get_rank(), DATA), first, loader.num_workers)
        loader.collate_fn, loader.worker_init_fn = self._batches, self._batches.start_worker
        loader.generator = torch.Generator()  # else the loader's start would draw from the generator seeded here
        start_again(iterator, loader)
        seed_everything(runner.seed, get_rank(), DATA, runner.iter)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Fix what the model draws in this iteration."""
        seed_everything(runner.seed, get_rank(), MODEL, runner.iter)

    def after_val(self, runner) -> None:
        """Do not let a validation change what is drawn next: a resumed run may not have made it."""
        if hasattr(self, "_batches"):
            seed_everything(runner.seed, get_rank(), DATA, runner.iter)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Fix what a loader without workers, or one that starts anew, draws for the next iteration."""
        self._batches.iteration = runner.iter + 1
        seed_everything(runner.seed, get_rank(), DATA, runner.iter + 1)


def start_again(iterator: Any, loader: DataLoader) -> None:
    """Start a loader anew if mmengine/runner/loops.py (0.10.7) has started its workers before any hook."""
    if getattr(iterator, "_iterator", None) is None:
        return
    iterator._iterator = None
    sampler: Any = loader.sampler
    if hasattr(sampler, "_indices_of_rank"):  # InfiniteSampler's only generator ends with the first iterator
        sampler.indices = sampler._indices_of_rank()
    iterator._iterator = iter(loader)
