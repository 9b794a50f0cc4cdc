"""Random generators: leave them as they were found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["kept_randomness"]


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
