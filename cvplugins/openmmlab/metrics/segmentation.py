"""The segmentation metric: one small state an image, one sum over the ranks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import all_reduce, get_rank, get_world_size, is_main_process

from cvplugins.metrics import SegmentationMetric as Core
from cvplugins.registry import METRICS

from .base import PluginMetric

__all__ = ["SegmentationMetric"]


class _Sparse(NamedTuple):
    """The counts of one image that are not 0: an image shows few of the pairs of classes."""

    place: np.ndarray
    pixels: np.ndarray


@METRICS.register_module()
class SegmentationMetric(PluginMetric):
    """IoU, accuracy, Dice, F-score, kappa and more; see :class:`cvplugins.metrics.SegmentationMetric`.

    Takes the place of mmseg's ``IoUMetric``, whose mIoU, mAcc and aAcc it gives, as shares of 1 instead of rounded
    per cent. Logs ``sem_seg/mIoU``, ``sem_seg/aAcc``, ``sem_seg/mAcc``, ``sem_seg/mDice`` and so on,
    ``sem_seg/IoU/<class>``, and a table; writes ``sem_seg_results.json`` and ``sem_seg_figure`` as PNG and SVG.

    Each image is counted once, whatever the sampler padded, by mmengine's own rule. The ranks then exchange one sum of
    counts, whose size does not depend on the number of images.

    Args:
        ignore_index, rule, beta, boundary, dilation_ratio, tolerance: Options of the core.
        out_dir, collect_device, prefix: See :class:`PluginMetric`.
    """

    default_prefix = "sem_seg"

    def __init__(
        self,
        ignore_index: int | None = 255,
        rule: str = "mmseg",
        beta: float = 1.0,
        boundary: bool = False,
        dilation_ratio: float = 0.02,
        tolerance: float = 0.008,
        out_dir: str | os.PathLike | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(out_dir=out_dir, collect_device=collect_device, prefix=prefix)
        self.options: dict[str, Any] = {
            "ignore_index": ignore_index,
            "rule": rule,
            "beta": beta,
            "boundary": boundary,
            "dilation_ratio": dilation_ratio,
            "tolerance": tolerance,
        }
        Core(["any"], **self.options)  # refuses wrong options before any work

    def names(self) -> list[str] | None:
        """See :class:`PluginMetric`."""
        has_classes = (self.dataset_meta or {}).get("classes")
        return list(self._core().compute().numbers()) if has_classes else None

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Count the pixels of each image."""
        core = self._core()
        for sample in data_samples:
            # mmseg predicts one class by a threshold, as floats.
            prediction, label = (_plane(sample[name]["data"]) for name in ("pred_sem_seg", "gt_sem_seg"))
            name = sample.get("img_path") or sample.get("img_id", len(self.results))
            state = core.count(name, label, prediction.long() if prediction.is_floating_point() else prediction)
            place = np.flatnonzero(state)
            self.results.append(_Sparse(place, state[place]))

    def evaluate(self, size: int) -> dict[str, float]:
        """Return the metrics of the whole data set, on every rank.

        Args:
            size: Number of images of the data set; what the ranks hold beyond it is padding.
        """
        counts = torch.zeros(get_world_size(), dtype=torch.int64)
        counts[get_rank()] = len(self.results)
        all_reduce(counts)
        core = self._core()
        for image in self.results[: _kept(counts.tolist(), get_rank(), size)]:
            core.state[image.place] += image.pixels
        all_reduce(torch.from_numpy(core.state))
        self.results.clear()
        place = np.flatnonzero(core.state)
        found = self.compute_metrics([_Sparse(place, core.state[place])])
        return {f"{self.prefix}/{name}": value for name, value in found.items()}

    def compute_metrics(self, results: list[_Sparse]) -> dict[str, float]:
        """Compute the metrics; on the main process also log and write them."""
        core = self._core()
        for image in results:
            core.state[image.place] += image.pixels
        result = core.compute()
        if is_main_process():
            self.report(result)
        return result.scalars()

    def _core(self) -> Core:
        return Core(self.dataset_meta["classes"], **self.options)


def _plane(data: torch.Tensor) -> torch.Tensor:
    """Return ``(1, H, W)`` as ``(H, W)``."""
    return data.reshape(data.shape[-2:])


def _kept(counts: Sequence[int], rank: int, size: int) -> int:
    """Return how many of a rank's images count: mmengine takes the images of the ranks in turn and ``size`` of all.

    Args:
        counts: Images that each rank has seen.
        rank: The rank asked for.
        size: Images of the data set.
    """
    turns = range(counts[rank])
    before = (sum(min(count, turn + (other < rank)) for other, count in enumerate(counts)) for turn in turns)
    return sum(place < size for place in before)
