"""Image quality metric: mmagic's data samples to arrays, once; log, JSON and figures from the core's result."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cvplugins import metrics
from cvplugins.metrics import ImageQuality
from cvplugins.registry import METRICS

from .base import PluginMetric

__all__ = ["ImageQualityMetric", "find_data", "image_name"]

NAMES = ("img_path", "gt_img_path", "gt_path", "key")


@METRICS.register_module()
class ImageQualityMetric(PluginMetric):
    """MSE, MAE, PSNR, SSIM and MS-SSIM; see :class:`cvplugins.metrics.ImageQualityMetric`.

    Takes data samples as mmagic's: ``pred_img``, or ``output.pred_img``, and ``gt_img``, each ``(C, H, W)``. Images are
    named by their path (``img_path``, ``gt_img_path``, ``gt_path`` or ``key``), or else by their number in the data
    set. Logs ``image/PSNR``, ``image/SSIM`` and so on, and a table; writes ``image_results.json``, which holds every
    image, and ``image_figure`` as PNG and SVG. mmengine does not know that more is better: say
    ``default_hooks=dict(checkpoint=dict(save_best='image/PSNR', rule='greater'))``.

    Args:
        data_range: Largest minus smallest possible value: 255 for what mmagic's preprocessor gives.
        pred_key: Where the image is in a data sample; a dot leads into a nested one.
        gt_key: Where its target is.
        out_dir, collect_device, prefix: See :class:`PluginMetric`.
        options: ``measures``, ``layout``, ``crop_border``, ``luminance`` and ``psnr_of_equal`` of the core class.

    Raises:
        ValueError: An option is none of what is accepted.
    """

    default_prefix = "image"

    def __init__(
        self,
        data_range: float,
        pred_key: str = "pred_img",
        gt_key: str = "gt_img",
        out_dir: str | os.PathLike | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(out_dir=out_dir, collect_device=collect_device, prefix=prefix)
        self.pred_key, self.gt_key = pred_key, gt_key
        self.options = {"data_range": data_range, **options}
        self._core()  # refuses wrong options before any work

    def names(self) -> list[str]:
        """See :class:`PluginMetric`."""
        return list(self._core().compute().numbers())

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Append the measures of each image."""
        core = self._core()
        for sample in data_samples:
            name = image_name(sample)
            shown = f"number {len(self.results)} of this process" if name is None else name
            image, target = (find_data(sample, key, shown) for key in (self.pred_key, self.gt_key))
            state = core.measure(shown, image, target)
            self.results.append((name, state))

    def compute_metrics(self, results: list[tuple[int | str | None, ImageQuality]]) -> dict[str, float]:
        """Compute, log and write the measures of all images."""
        core = self._core()
        for number, (name, image) in enumerate(results):
            core.add(image if name is not None else replace(image, image_id=number))
        result = core.compute()
        self.report(result)
        return result.scalars()

    def _core(self) -> metrics.ImageQualityMetric:
        return metrics.ImageQualityMetric(**self.options)


def find_data(sample: Mapping[str, Any], key: str, name: str, *default: Any) -> Any:
    """Return what a data sample holds under ``key``, or under ``output.key``, where mmagic's models put it.

    Args:
        sample: Data sample as a dict.
        key: A dot leads into a nested sample.
        name: What to call the image in an error.
        default: What to return where there is no such key.

    Raises:
        ValueError: There is no such key, and no default.
    """
    for path in (key, f"output.{key}"):
        found: Any = sample
        for part in path.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        if isinstance(found, Mapping) and "data" in found:
            found = found["data"]  # mmengine's PixelData
        if found is not None:
            return found
    if default:
        return default[0]
    raise ValueError(f"image {name}: its data sample has no {key!r}; it has {', '.join(sorted(sample))}")


def image_name(sample: Mapping[str, Any]) -> str | None:
    """Return the path of an image, or None where its data sample has none."""
    return next((str(sample[key]) for key in NAMES if sample.get(key)), None)
