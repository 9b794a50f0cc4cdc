"""Hard examples: which images a model finds hardest, learnt from the losses of its batches."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from cvplugins.distributed import gather_objects
from cvplugins.files import write_whole

__all__ = ["HardExampleReport", "HardExamples"]

HORIZON = 100  # observations over which the level of the loss is averaged


@dataclass(frozen=True)
class HardExampleReport:
    """What all ranks know after one refresh.

    Attributes:
        pool: Indices of the hardest images, the hardest first.
        hardness: The hardness of each, in multiples of the median image's loss.
        seen: Number of images that have been observed so far, by any rank.
    """

    pool: tuple[int, ...]
    hardness: tuple[float, ...]
    seen: int

    def write(self, path: str | os.PathLike[str], names: Sequence[str], key: str, **when: int) -> None:
        """Write the pool as JSON, whole or not at all.

        Args:
            path: The file.
            names: Of all images.
            key: What a name is called in the file.
            when: More entries, such as ``iteration``.
        """
        ranked = zip(self.pool, self.hardness, strict=True)
        images = [{key: names[index], "hardness": round(hardness, 3)} for index, hardness in ranked]
        with write_whole(path) as temporary:
            temporary.write_text(json.dumps({**when, "seen": self.seen, "images": images}, indent=1) + "\n")

    def in_words(self, names: Sequence[str]) -> str:
        """Return a line for the log; nothing if the pool is empty."""
        if not self.pool:
            return ""
        return (
            f"{len(self.pool)} of {self.seen} images seen; the hardest is {names[self.pool[0]]}, "
            f"{self.hardness[0]:.1f} times the median"
        )


class HardExamples:
    """The hardest images of a data set, by losses that were averaged over a batch.

    Hardness is the loss in multiples of the run's level at that time, because an image seen at the beginning is not
    hard for having been first. A batch's loss does not say which of its images is to blame; so each estimate moves by
    the same part of the *surprise*, the difference between the batch's hardness and the mean of what was estimated
    for its images. Over the epochs, with ever other neighbours, this solves for the loss of each image (the normalised
    least mean squares of Widrow and Hoff; Kaczmarz's projections for a ``rate`` of 1), where an average of batch
    losses would stay between the image's loss and everyone's. With one image a batch it is an exponential moving
    average of its loss.

    Losses stay on their device until :meth:`refresh`, which reads them in one transfer.

    Args:
        size: Number of images.
        capacity: Images in the pool at most, at least 1.
        min_hardness: Images in the pool are harder than so many times the median image, at least 0. It keeps the
            pool empty for a data set without hard images; 0 always takes the ``capacity`` hardest.
        rate: Part of the surprise by which an estimate moves, in (0, 1].

    Raises:
        ValueError: An option is out of its range.

    Example:
        >>> hard = HardExamples(size=4, capacity=2)
        >>> for _ in range(10):
        ...     for index, loss in enumerate([1.0, 1.0, 5.0, 1.0]):
        ...         hard.observe([index], loss)
        >>> hard.refresh().pool
        (2,)
    """

    def __init__(self, size: int, capacity: int = 256, min_hardness: float = 2.0, rate: float = 0.5) -> None:
        for name, count in (("size", size), ("capacity", capacity)):
            if count < 1:
                raise ValueError(f"{name} is {count}; it must be at least 1")
        if not min_hardness >= 0:
            raise ValueError(f"min_hardness is {min_hardness}; it must be at least 0")
        if not 0 < rate <= 1:
            raise ValueError(f"rate is {rate}; it must be above 0 and at most 1")
        self.capacity = capacity
        self.min_hardness = min_hardness
        self.rate = rate
        self._hardness = np.ones(size)  # an image that was never seen is of average hardness
        self._seen = np.zeros(size, bool)
        self._changed = np.zeros(size, bool)  # by this rank since the last refresh
        self._level = 0.0
        self._observations = 0
        self._pending: list[tuple[list[int], Tensor]] = []

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._hardness)

    def observe(self, indices: Sequence[int], loss: Tensor | float) -> None:
        """Take note of a batch; nothing is computed or read from the device yet.

        Args:
            indices: The images of the batch.
            loss: Their mean loss, a scalar. One that is not finite teaches nothing and is dropped.
        """
        if indices:
            self._pending.append((list(indices), torch.as_tensor(loss).detach().float().reshape(())))

    def refresh(self, group: ProcessGroup | None = None) -> HardExampleReport:
        """Put together what all ranks have observed and return the pool, the same on each.

        Every rank of ``group`` has to call this; one gather of the images that changed (12 bytes each).
        """
        self._learn()
        indices = np.flatnonzero(self._changed).astype(np.int32)
        found = gather_objects((indices, self._hardness[indices], self._level, self._observations), group)
        if len(found) > 1:
            self._merge(found)
        self._changed[:] = False
        return self._report()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run has to know; of several ranks, what this one knows."""
        self._learn()
        return {
            "hardness": torch.from_numpy(self._hardness.copy()),
            "seen": torch.from_numpy(self._seen.copy()),
            "changed": torch.from_numpy(self._changed.copy()),
            "level": self._level,
            "observations": self._observations,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned.

        Raises:
            ValueError: The state is of a data set of another size.
        """
        if len(state["hardness"]) != len(self):
            raise ValueError(f"the state is of {len(state['hardness'])} images, the data set has {len(self)}")
        self._hardness = state["hardness"].cpu().numpy().copy()
        self._seen, self._changed = state["seen"].cpu().numpy().copy(), state["changed"].cpu().numpy().copy()
        self._level, self._observations = state["level"], state["observations"]
        self._pending = []

    def _learn(self) -> None:
        """Work off what was observed, in its order."""
        if not self._pending:
            return
        device = self._pending[-1][1].device
        losses = torch.stack([loss.to(device) for _, loss in self._pending]).tolist()
        for (indices, _), loss in zip(self._pending, losses, strict=True):
            if math.isfinite(loss):
                self._credit(np.array(indices), loss)
        self._pending = []

    def _credit(self, images: np.ndarray[Any, Any], loss: float) -> None:
        self._observations += 1
        self._level += (loss - self._level) / min(self._observations, HORIZON)
        surprise = loss / self._level - self._hardness[images].mean() if self._level > 0 else 0.0
        self._hardness[images] += self.rate * surprise
        self._seen[images] = self._changed[images] = True

    def _merge(self, found: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], float, int]]) -> None:
        """Take over the others' images; of one that several ranks saw, the mean. The same sums on every rank."""
        total, count = np.zeros(len(self)), np.zeros(len(self), np.int64)
        for indices, hardness, _, _ in found:
            total[indices] += hardness
            count[indices] += 1
        changed = count > 0
        self._hardness[changed] = total[changed] / count[changed]
        self._seen |= changed
        levels = [level for _, _, level, observations in found if observations]
        self._level = math.fsum(levels) / len(levels) if levels else 0.0
        self._observations = max(observations for *_, observations in found)

    def _report(self) -> HardExampleReport:
        seen = np.flatnonzero(self._seen)
        if not len(seen):
            return HardExampleReport((), (), 0)
        # Not the level: the hard images that are drawn raise it, and would leave the pool and come back by turns.
        median = max(float(np.median(self._hardness[seen])), np.finfo(float).tiny)
        relative = self._hardness[seen] / median
        order = np.argsort(-relative, kind="stable")[: self.capacity]
        order = order[relative[order] > self.min_hardness]
        return HardExampleReport(tuple(seen[order].tolist()), tuple(relative[order].tolist()), len(seen))
