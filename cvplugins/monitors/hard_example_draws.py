"""Hard examples: how to draw them more often, evenly spread and the same on every rank."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

__all__ = ["HardExamplePlan", "limited_ratio", "mix_in"]


def mix_in(
    indices: Iterable[int],
    pool: Sequence[int],
    ratio: float,
    seed: Sequence[int],
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[int]:
    """Put hard images in the place of every ``1 / ratio``-th index.

    Evenly spread, so that each batch has its share, and each image of the pool equally often. The ranks take turns in
    one shuffled order of the pool.

    Args:
        indices: What this rank would draw.
        pool: The hard images; nothing is changed if it is empty.
        ratio: Part of the indices to replace, in [0, 1].
        seed: Non-negative numbers that fix the order, the same on every rank.
        rank: Number of this process.
        world_size: Number of processes.

    Yields:
        As many indices as were given.

    Example:
        >>> list(mix_in(range(8), pool=[100], ratio=0.25, seed=[0]))
        [0, 100, 2, 3, 4, 100, 6, 7]
    """
    if not pool or ratio <= 0:
        yield from indices
        return
    generator = np.random.default_rng(seed)
    order = generator.permutation(np.asarray(pool)).tolist()
    phase = generator.random()
    drawn = 0
    for position, index in enumerate(indices, start=1):
        due = math.floor(position * ratio + phase)
        if due > drawn:
            yield order[(drawn * world_size + rank) % len(order)]
            drawn = due
        else:
            yield index


def limited_ratio(ratio: float, max_repeats: float, pool_size: int, size: int) -> float:
    """Return the part of the draws that are hard, so that no image repeats too often.

    Args:
        ratio: The part that is wished for, in [0, 1].
        max_repeats: How often a hard image may be drawn in as many draws as there are images.
        pool_size: Number of hard images.
        size: Number of images.

    Raises:
        ValueError: ``ratio`` or ``max_repeats`` is out of its range.

    Example:
        >>> limited_ratio(0.25, max_repeats=10, pool_size=5, size=1000)
        0.05
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio is {ratio}; it must be from 0 to 1")
    if not max_repeats > 0:
        raise ValueError(f"max_repeats is {max_repeats}; it must be above 0")
    return min(ratio, max_repeats * pool_size / size)


class HardExamplePlan:
    """Which images are hard in which part of a training, and the draws that follow from it.

    Args:
        ratio: Part of the draws that are hard, in [0, 1].
        max_repeats: How often a hard image may be drawn in as many draws as there are images, above 0.
        keep: Parts whose pools are kept, the newest ones; all if None, for a loader that draws from the beginning to
            find its place.

    Attributes:
        pools: The hard images of each part; none where a part has no entry.

    Raises:
        ValueError: ``ratio`` or ``max_repeats`` is out of its range.

    Example:
        >>> plan = HardExamplePlan(ratio=0.5, max_repeats=10)
        >>> plan.add(1, [7])
        >>> list(itertools.islice(plan.stream(itertools.count(), part_length=4, size=8, seed=0), 8))
        [0, 1, 2, 3, 7, 5, 7, 7]
    """

    def __init__(self, ratio: float, max_repeats: float, keep: int | None = None) -> None:
        limited_ratio(ratio, max_repeats, 0, 1)  # a wrong option is told at once
        self.ratio = ratio
        self.max_repeats = max_repeats
        self.keep = keep
        self.pools: dict[int, list[int]] = {}

    def add(self, part: int, pool: Sequence[int]) -> None:
        """Set the hard images of a part, later than those so far."""
        self.pools[part] = list(pool)
        if self.keep is not None:
            self.pools = {each: kept for each, kept in self.pools.items() if each > part - self.keep}

    def mix(
        self, indices: Iterable[int], part: int, size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> Iterator[int]:
        """Put the hard images of a part among the ``indices`` that a rank would draw in it, of ``size`` images."""
        pool = self.pools.get(part, [])
        ratio = limited_ratio(self.ratio, self.max_repeats, len(pool), size)
        return mix_in(indices, pool, ratio, (seed, part), rank, world_size)

    def stream(
        self,
        indices: Iterable[int],
        part_length: int | None,
        size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> Iterator[int]:
        """Mix an endless stream, cut into parts of ``part_length`` draws of a rank; all one part if None."""
        ordinary = iter(indices)
        for part in itertools.count():
            # A part is mixed when its first index is asked for, and not before.
            yield from self.mix(itertools.islice(ordinary, part_length), part, size, seed, rank, world_size)
