"""Generation metric: features of images, given or by Inception v3, to the core; log and JSON from its result."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from cvplugins import metrics
from cvplugins.metrics import FeatureStatistics, ImageFeatures, InceptionFeatures
from cvplugins.registry import METRICS

from .base import PluginMetric, as_array
from .image_quality import find_data, image_name

__all__ = ["GenerationMetric"]


@METRICS.register_module()
class GenerationMetric(PluginMetric):
    """Fréchet inception distance and inception score; see :class:`cvplugins.metrics.GenerationMetric`.

    With ``weights``, data samples hold RGB images ``(3, H, W)``: ``fake_img`` and, without ``statistics``, ``gt_img``.
    Without, they hold what a network of yours saw in them: ``fake_features`` and ``gt_features``, ``(D,)``, and
    ``fake_probabilities``, ``(K,)``; what is missing leaves FID or the score out. As mmengine's evaluator hands over
    one sample an image, the generated and the real image of a sample need not belong together. Logs
    ``generation/FID``, ``generation/IS`` and ``generation/IS_std``, and a table; writes ``generation_results.json``.
    For the best checkpoint say ``save_best='generation/FID', rule='less'``.

    Args:
        weights: Path of a state dict of torchvision's ``inception_v3``; None if the samples hold features.
        statistics: Path of an ``.npz`` file with ``mu`` and ``sigma`` of the features of the real images, in the place
            of real images.
        splits: Parts of which the inception score is the mean.
        data_range: Largest value of the images, whose smallest is 0.
        channel_order: ``"rgb"`` or ``"bgr"``, that of the images.
        fake_key: What the keys of generated images begin with; a dot leads into a nested sample.
        real_key: What the keys of real images begin with.
        device: Where Inception computes.
        out_dir, collect_device, prefix: See :class:`PluginMetric`.

    Raises:
        ValueError: An option is none of what is accepted, or a file is missing or does not fit.
    """

    default_prefix = "generation"

    def __init__(
        self,
        weights: str | os.PathLike | None = None,
        statistics: str | os.PathLike | None = None,
        splits: int = 10,
        data_range: float = 255,
        channel_order: str = "rgb",
        fake_key: str = "fake",
        real_key: str = "gt",
        device: str = "cpu",
        out_dir: str | os.PathLike | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(out_dir=out_dir, collect_device=collect_device, prefix=prefix)
        if channel_order not in ("rgb", "bgr"):
            raise ValueError(f"channel_order is {channel_order!r}; it is 'rgb' or 'bgr'")
        if not data_range > 0:
            raise ValueError(f"data_range is {data_range}; give the largest value of the images, such as 255 or 1")
        self.splits, self.data_range, self.channel_order = splits, data_range, channel_order
        self.fake_key, self.real_key = fake_key, real_key
        self.statistics = None if statistics is None else FeatureStatistics.load(statistics)
        self.network = None if weights is None else InceptionFeatures(weights, device)
        self._core()  # refuses wrong options before any work

    def names(self) -> list[str]:
        """See :class:`PluginMetric`."""
        return list(self._core().compute().numbers())

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Append the features of the generated and of the real image of each sample."""
        for sample in data_samples:
            core = metrics.GenerationMetric()  # checks the numbers now, where the image is known
            name = image_name(sample)
            shown = f"number {len(self.results)} of this process" if name is None else name
            kinds = (
                {False: self.fake_key} if self.statistics is not None else {False: self.fake_key, True: self.real_key}
            )
            for real, key in kinds.items():
                features, probabilities = self._seen(sample, key, shown)
                core.update([shown], features, probabilities, real=real)
            self.results.append((name, tuple(core.images.values())))

    def compute_metrics(self, results: list[tuple[int | str | None, tuple[ImageFeatures, ...]]]) -> dict[str, float]:
        """Compute, log and write the measures of all images."""
        core = self._core()
        for number, (name, images) in enumerate(results):
            for image in images:
                core.add(image if name is not None else replace(image, image_id=number))
        result = core.compute()
        self.report(result)
        return result.scalars()

    def _core(self) -> metrics.GenerationMetric:
        return metrics.GenerationMetric(splits=self.splits, real=self.statistics)

    def _seen(self, sample: Mapping[str, Any], key: str, name: str) -> tuple[Any, Any]:
        """Return features ``(1, D)`` and probabilities ``(1, K)`` of one image, or None."""
        if self.network is None:
            found = [find_data(sample, f"{key}_{kind}", name, None) for kind in ("features", "probabilities")]
            first, second = (None if each is None else as_array(each).reshape(1, -1) for each in found)
            return first, second
        image = torch.as_tensor(find_data(sample, f"{key}_img", name))
        if self.channel_order == "bgr":
            image = image.flip(0)
        try:
            features, probabilities = self.network(image, self.data_range)
        except ValueError as error:
            raise ValueError(f"image {name}: {error}") from None
        # The score is of generated images alone.
        return features[None], None if key == self.real_key else probabilities[None]
