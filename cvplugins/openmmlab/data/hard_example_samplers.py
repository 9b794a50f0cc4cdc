"""Samplers that draw hard images more often; :class:`~cvplugins.openmmlab.hooks.hard_examples` says which these are."""

from __future__ import annotations

from collections.abc import Iterator, Sized

from mmengine.dataset import DefaultSampler, InfiniteSampler

from cvplugins.monitors import HardExamplePlan
from cvplugins.registry import DATA_SAMPLERS

__all__ = ["HardExampleSampler", "InfiniteHardExampleSampler"]


@DATA_SAMPLERS.register_module()
class HardExampleSampler(DefaultSampler):
    """mmengine's DefaultSampler with hard images in the place of some; for epoch-based training.

    The number of draws stays. Without hard images the order is DefaultSampler's to the last index. Which image is
    drawn depends on seed, epoch, rank and the hard images alone.

    Args:
        dataset: The dataset.
        shuffle: See DefaultSampler.
        seed: See DefaultSampler.
        round_up: See DefaultSampler.
        ratio: Part of the draws that are hard, in [0, 1].
        max_repeats: How often a hard image is drawn an epoch at most, above 0; lowers ``ratio`` while there are few.

    Raises:
        ValueError: ``ratio`` or ``max_repeats`` is out of its range.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,
        seed: int | None = None,
        round_up: bool = True,
        ratio: float = 0.25,
        max_repeats: float = 10,
    ) -> None:
        super().__init__(dataset, shuffle=shuffle, seed=seed, round_up=round_up)
        self.plan = HardExamplePlan(ratio, max_repeats, keep=3)

    def __iter__(self) -> Iterator[int]:
        """Iterate over the indices of this epoch and rank."""
        return self.plan.mix(super().__iter__(), self.epoch, len(self.dataset), self.seed, self.rank, self.world_size)


@DATA_SAMPLERS.register_module()
class InfiniteHardExampleSampler(InfiniteSampler):
    """mmengine's InfiniteSampler with hard images in the place of some; for iteration-based training.

    Without hard images the order is InfiniteSampler's to the last index. The stream is cut into parts of
    ``part_length`` draws, which the hook sets; each part has its own hard images. ``skip`` goes to any place of it.

    Args:
        dataset: The dataset.
        shuffle: See InfiniteSampler.
        seed: See InfiniteSampler.
        ratio: Part of the draws that are hard, in [0, 1].
        max_repeats: How often a hard image is drawn in a pass over the data at most, above 0; lowers ``ratio`` while
            there are few.

    Raises:
        ValueError: ``ratio`` or ``max_repeats`` is out of its range.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,
        seed: int | None = None,
        ratio: float = 0.25,
        max_repeats: float = 10,
    ) -> None:
        self.plan = HardExamplePlan(ratio, max_repeats, keep=3)
        self.part_length: int | None = None
        super().__init__(dataset, shuffle=shuffle, seed=seed)

    def _indices_of_rank(self) -> Iterator[int]:
        # A generator, so that the hook can set part_length after the sampler is made.
        yield from self.plan.stream(
            super()._indices_of_rank(), self.part_length, len(self.dataset), self.seed, self.rank, self.world_size
        )
