"""Random generators: leave them as they were found, or make them a function of a few numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["DATA", "MODEL", "kept_randomness", "seed_everything"]

DATA, MODEL = 0, 1  # streams of random numbers


@contextmanager
def kept_randomness() -> Iterator[None]:
    """Restore Python's, NumPy's and torch's generators (CPU and all GPUs) in the end.

    >>> import random
    >>> before = random.getstate()
    >>> with kept_randomness():
    ...     _ = random.random()
    >>> random.getstate() == before
    True
    """
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


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
