"""Metrics: data samples to plain arrays, once; the core computes; log, JSON and figure come from its result."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from cvplugins.files import write_whole
from cvplugins.metrics import DetectionMetric, ImageDetections
from cvplugins.registry import METRICS
from cvplugins.reporting import detection_table, draw_detection_figure

__all__ = ["PluginMetric", "VOCDetectionMetric"]


class PluginMetric(BaseMetric):
    """mmengine's BaseMetric, which also writes its whole result to files.

    A subclass appends one state an image to ``self.results``, so that ``BaseMetric`` can drop what a sampler
    padded; its ``compute_metrics`` merges them, and calls :meth:`path_for` for each file that it writes.

    Args:
        out_dir: Folder for the files; the hook ``cvplugins.ResultFilesHook`` sets it to the run's log folder.
            No files if None.
        collect_device: Where the states of all ranks are gathered, ``"cpu"`` or ``"gpu"``.
        prefix: First part of the keys in the log.
    """

    def __init__(
        self, out_dir: str | os.PathLike | None = None, collect_device: str = "cpu", prefix: str | None = None
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.out_dir = out_dir
        self.written: dict[str, Path] = {}

    def path_for(self, kind: str, suffix: str) -> Path:
        """Return where a file of this metric goes, and remember it for the summary of the run."""
        self.written[kind] = Path(self.out_dir or ".", f"{self.prefix}_{kind}{suffix}")
        return self.written[kind]


@METRICS.register_module()
class VOCDetectionMetric(PluginMetric):
    """AP and AR by PASCAL VOC's and by COCO's rules; see :class:`cvplugins.metrics.DetectionMetric`.

    Takes the place of mmdet's ``VOCMetric`` for any dataset whose samples hold ``gt_instances`` and
    ``ignored_instances`` (VOC's difficult objects). Logs ``voc/AP50``, ``voc/AP50_11point``, ``voc/AP``,
    ``voc/AR100`` and so on, ``voc/AP50/<class>``, and a table; writes ``voc_results.json`` and ``voc_figure.png``.

    Args:
        out_dir, collect_device, prefix: See :class:`PluginMetric`.
    """

    default_prefix = "voc"

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Append the detections and the ground truth of each image."""
        self.results += [_image_detections(sample) for sample in data_samples]

    def compute_metrics(self, results: list[ImageDetections]) -> dict[str, float]:
        """Compute, log and write the metrics of all images."""
        metric = DetectionMetric(self.dataset_meta["classes"])
        for image in results:
            metric.update(image)
        result = metric.compute()
        MMLogger.get_current_instance().info(f"\n{detection_table(result)}")
        if self.out_dir is not None:
            with write_whole(self.path_for("results", ".json")) as temporary:
                temporary.write_text(json.dumps(result.as_dict(), indent=1) + "\n")
            draw_detection_figure(result, self.path_for("figure", ".png"))
        return result.scalars()


def _image_detections(sample: Mapping[str, Any]) -> ImageDetections:
    found, truths = sample["pred_instances"], sample["gt_instances"]
    difficult = sample.get("ignored_instances") or {"bboxes": np.zeros((0, 4)), "labels": np.zeros(0)}
    is_difficult = np.arange(len(truths["labels"]) + len(difficult["labels"])) >= len(truths["labels"])
    return ImageDetections(
        # Datasets that were joined may use an image id twice, but never a path.
        image_id=str(sample.get("img_path") or sample["img_id"]),
        boxes=_array(found["bboxes"]),
        scores=_array(found["scores"]),
        labels=_array(found["labels"]),
        truth_boxes=np.concatenate([_array(truths["bboxes"]), _array(difficult["bboxes"])]),
        truth_labels=np.concatenate([_array(truths["labels"]), _array(difficult["labels"])]),
        difficult=is_difficult,
    )


def _array(values: Any) -> np.ndarray:
    values = getattr(values, "tensor", values)  # mmdet's HorizontalBoxes hold one
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # NumPy has no bfloat16
    return np.asarray(values)
