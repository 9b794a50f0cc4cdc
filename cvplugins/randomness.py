"""Random generators: leave them as they were found, or make them a function of a few numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["DATA", "MODEL", "fixed_randomness", "kept_randomness", "seed_everything"]

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


@contextmanager
def fixed_randomness(device: torch.device, seed: int = 0) -> Iterator[None]:
    """Seed the generators of Python, NumPy, torch and ``device``, and give them back as they were.

    >>> before = torch.get_rng_state()
    >>> with fixed_randomness(torch.device("cpu")): first = torch.rand(1)
    >>> with fixed_randomness(torch.device("cpu")): bool(torch.rand(1) == first)
    True
    >>> bool((torch.get_rng_state() == before).all())
    True
    """
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            random.seed(seed)
            np.random.seed(seed)
            # Not torch.manual_seed, which seeds every GPU.
            torch.default_generator.manual_seed(seed)
            if device.type == "cuda":
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
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
