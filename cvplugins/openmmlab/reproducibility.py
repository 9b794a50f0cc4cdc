"""Randomness as a function of (seed, rank, iteration), so that a resumed run repeats the uninterrupted one.

mmengine saves no random state. Its loaders seed the workers alike in every epoch, and persistent workers
carry a state over from epoch to epoch that nothing can restore.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook

from cvplugins.registry import FUNCTIONS, HOOKS

__all__ = ["IterationSeedHook", "seed_everything", "seed_worker"]


def seed_everything(*numbers: int) -> None:
    """Seed Python's, NumPy's and torch's generators from a tuple of non-negative numbers.

    >>> seed_everything(0, 1, 2); first = torch.rand(1)
    >>> seed_everything(0, 1, 2); bool(torch.rand(1) == first)
    True
    """
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@FUNCTIONS.register_module()
def seed_worker(worker_id: int) -> None:
    """Seed a loader's worker from torch's base seed, which differs in every epoch.

    For ``train_dataloader.worker_init_fn``, together with ``persistent_workers=False`` (a persistent worker
    is seeded only once) and :class:`IterationSeedHook`, which fixes the base seed.
    """
    seed_everything(torch.initial_seed())


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Seed the generators before every epoch and iteration from the run's seed, the rank and the iteration.

    Sampling of anchors, dropout and the loader's workers then depend on the iteration alone and not on what
    ran before it, so that no random state has to be saved. The seed is the run's (``--seed``, or the one that
    mmengine drew and stored in the checkpoint).
    """

    priority = "VERY_HIGH"

    def before_train_epoch(self, runner) -> None:
        """Fix the base seed of the workers that are about to start."""
        self._seed(runner)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Fix what the model draws in this iteration."""
        self._seed(runner)

    def _seed(self, runner) -> None:
        seed_everything(runner.seed, get_rank(), runner.iter)
