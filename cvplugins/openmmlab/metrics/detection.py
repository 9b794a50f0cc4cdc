"""Detection metrics: boxes and masks of data samples to the core, which computes; log, JSON and figures from it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from cvplugins.datasets import CocoAnnotations, DataError, read_coco_annotations
from cvplugins.metrics import DetectionMetric as Core
from cvplugins.metrics import ImageDetections, ImageMasks, detection_rule, encode_masks
from cvplugins.metrics import InstanceSegmentationMetric as MaskCore
from cvplugins.registry import METRICS

from .base import PluginMetric, as_array

__all__ = ["DetectionMetric", "InstanceSegmentationMetric", "VOCDetectionMetric"]

IGNORED = ("difficult", "crowd")


@METRICS.register_module()
class DetectionMetric(PluginMetric):
    """Everything about detections of any dataset of mmdet; see :class:`cvplugins.metrics.DetectionMetric`.

    Logs ``bbox/AP``, ``bbox/AP50``, ``bbox/AP_small``, ``bbox/AR100``, ``bbox/F1`` and so on,
    ``bbox/AP/<class>``, and a table; writes ``bbox_results.json`` and figures of the curves, the errors and
    the confusion matrix as PNG and SVG.

    The ground truth is what the dataset loads, ``gt_instances`` and ``ignored_instances``, in float32; mmdet drops the
    area of an object's outline on the way, by which COCO's size ranges go. With ``ann_file`` the ground truth is that
    file's. Where the pipeline hands on ``instances`` (``PackDetInputs(meta_keys=(..., 'instances'))``), boxes are
    those, unrounded. Both as in mmdet's ``CocoMetric``, whose numbers the rule ``"coco_mmdet"`` gives.

    Args:
        rules: Names of matching rules, or options of one as dicts; ``"coco"``, ``"coco_mmdet"``, ``"voc2007"``,
            ``"voc2012"``, ``"detectron2"``, ``dict(base="voc2012", iou_comparison=">")``. The first one decides the
            rest.
        score_threshold: Where to measure precision, recall, F1, false positives per image and errors.
        ann_file: Ground truth in COCO's format, whose images ``img_id`` names.
        ignored: What ``ignored_instances`` are: ``"crowd"`` (COCO's, of mmdet's ``CocoDataset``) or ``"difficult"``
            (PASCAL VOC's). Crowds if None and the first rule is COCO's, else difficult.
        out_dir: See :class:`PluginMetric`.
        collect_device: See :class:`PluginMetric`.
        prefix: See :class:`PluginMetric`.

    Raises:
        ValueError: A rule or what is ignored is unknown.
        DataError: ``ann_file`` cannot be read.
    """

    default_prefix = "bbox"
    core: type[Core] = Core

    def __init__(
        self,
        rules: str | Sequence[str | dict[str, Any]] = ("coco",),
        score_threshold: float = 0.5,
        ann_file: str | os.PathLike | None = None,
        ignored: str | None = None,
        out_dir: str | os.PathLike | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(out_dir=out_dir, collect_device=collect_device, prefix=prefix)
        self.rules = [detection_rule(rule) for rule in ([rules] if isinstance(rules, str) else rules)]
        self.score_threshold = score_threshold
        self.core(["any"], self.rules, score_threshold)  # refuses wrong options before any work
        if ignored is None:
            ignored = "crowd" if self.rules[0].assignment == "overlaps_most_free" else "difficult"
        if ignored not in IGNORED:
            raise ValueError(f"ignored is {ignored!r}; accepted: {IGNORED}")
        self.ignored = ignored
        self.ann_file = ann_file
        self._annotations: CocoAnnotations | None = None

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Append the detections and the ground truth of each image."""
        self.results += [self._image(sample) for sample in data_samples]

    def names(self) -> list[str] | None:
        """See :class:`PluginMetric`."""
        has_classes = (self.dataset_meta or {}).get("classes")
        return list(self._core().compute().numbers()) if has_classes else None

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Compute, log and write the metrics of all images."""
        metric = self._core()
        for image in results:
            metric.update(image)
        result = metric.compute()
        self.report(result)
        return result.scalars()

    def _core(self) -> Core:
        return self.core(self.dataset_meta["classes"], self.rules, self.score_threshold)

    def _image(self, sample: Mapping[str, Any]) -> ImageDetections | ImageMasks:
        found = sample["pred_instances"]
        if self.ann_file is not None:
            truths = self._file_truth(sample)
        elif "instances" in sample:
            truths = self._listed_truth(sample["instances"])
        else:
            truths = self._loaded_truth(sample)
        return ImageDetections(
            image_id=_image_id(sample),
            boxes=as_array(found["bboxes"]),
            scores=as_array(found["scores"]),
            labels=as_array(found["labels"]),
            **truths,
        )

    def _loaded_truth(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        truths, ignored = sample["gt_instances"], sample.get("ignored_instances") or _NOTHING
        flags = np.arange(len(truths["labels"]) + len(ignored["labels"])) >= len(truths["labels"])
        return {
            "truth_boxes": np.concatenate([as_array(truths["bboxes"]), as_array(ignored["bboxes"])]),
            "truth_labels": np.concatenate([as_array(truths["labels"]), as_array(ignored["labels"])]),
            self.ignored: flags,
        }

    def _listed_truth(self, objects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "truth_boxes": np.array([each["bbox"] for each in objects], np.float64).reshape(-1, 4),
            "truth_labels": np.array([each["bbox_label"] for each in objects], np.int64),
            self.ignored: np.array([each.get("ignore_flag", 0) for each in objects], bool),
        }

    def _file_truth(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        return self._file_objects(sample).as_truth()

    def _file_objects(self, sample: Mapping[str, Any]) -> Any:
        if self._annotations is None:
            assert self.ann_file is not None  # see _image
            self._annotations = read_coco_annotations(self.ann_file, self.dataset_meta["classes"])
            if not self._annotations.in_file_order:
                raise DataError(
                    f"{self.ann_file}: its categories have another order than the classes of the dataset, and mmdet "
                    "numbers labels by the file; name the classes in its order"
                )
        image_id = sample["img_id"]
        if image_id not in self._annotations.images:
            raise DataError(f"{self.ann_file}: has no image {image_id!r}; is it the file of this dataset?")
        return self._annotations.images[image_id]


@METRICS.register_module()
class VOCDetectionMetric(DetectionMetric):
    """AP and AR by PASCAL VOC's and by COCO's rules, and all else that :class:`DetectionMetric` gives.

    Takes the place of mmdet's ``VOCMetric``. Logs ``bbox/AP50``, ``bbox/AP50_11point``, ``bbox/AP``, ``bbox/AR100`` and
    so on, ``bbox/AP50/<class>``, and a table; writes ``bbox_results.json`` and figures.

    Args:
        rules: See :class:`DetectionMetric`.
        score_threshold: See :class:`DetectionMetric`.
        out_dir: See :class:`PluginMetric`.
        collect_device: See :class:`PluginMetric`.
        prefix: See :class:`PluginMetric`.
    """

    default_prefix = "bbox"

    def __init__(
        self,
        rules: str | Sequence[str | dict[str, Any]] = ("voc2012", "coco"),
        score_threshold: float = 0.5,
        out_dir: str | os.PathLike | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        options: dict[str, Any] = {"out_dir": out_dir, "collect_device": collect_device, "prefix": prefix}
        super().__init__(rules=rules, score_threshold=score_threshold, ignored="difficult", **options)


@METRICS.register_module()
class InstanceSegmentationMetric(DetectionMetric):
    """Everything about masks of any dataset of mmdet; see :class:`cvplugins.metrics.InstanceSegmentationMetric`.

    Logs ``segm/AP``, ``segm/AP50``, ``segm/AP_small``, ``segm/matched_IoU`` and so on, ``segm/AP/<class>``, and a
    table; writes ``segm_results.json`` and figures. Where a model gives ``mask_scores``, these count.

    Args:
        rules: See :class:`DetectionMetric`.
        score_threshold: See :class:`DetectionMetric`.
        ann_file: See :class:`DetectionMetric`.
        ignored: See :class:`DetectionMetric`.
        out_dir: See :class:`PluginMetric`.
        collect_device: See :class:`PluginMetric`.
        prefix: See :class:`PluginMetric`.
    """

    default_prefix = "segm"
    core = MaskCore

    def _image(self, sample: Mapping[str, Any]) -> ImageMasks:
        found = sample["pred_instances"]
        if "masks" not in found:
            raise ValueError(f"image {_image_name(sample)}: the model predicts no masks")
        truths = self._file_truth(sample) if self.ann_file is not None else self._loaded_truth(sample)
        return ImageMasks.from_masks(
            image_id=_image_id(sample),
            masks=_masks(found["masks"]),
            scores=as_array(found["mask_scores"] if "mask_scores" in found else found["scores"]),
            labels=as_array(found["labels"]),
            **truths,
        )

    def _loaded_truth(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        truths, ignored = sample["gt_instances"], sample.get("ignored_instances") or _NOTHING
        if "masks" not in truths:
            raise ValueError(
                f"image {_image_name(sample)}: no ground truth masks; add with_mask=True to LoadAnnotations of the "
                "test pipeline, or give the metric an ann_file"
            )
        loaded = super()._loaded_truth(sample)
        del loaded["truth_boxes"]
        masks = [mask for each in (truths, ignored) if len(each["labels"]) for mask in _masks(each["masks"])]
        return {"truth_masks": masks, **loaded}

    def _file_truth(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        height, width = sample["ori_shape"][:2]
        truths = super()._file_truth(sample)
        del truths["truth_boxes"], truths["truth_sizes"]
        return {"truth_masks": self._file_objects(sample).masks(height, width), **truths}


_NOTHING: dict[str, Any] = {"bboxes": np.zeros((0, 4)), "labels": np.zeros(0), "masks": ()}


def _image_id(sample: Mapping[str, Any]) -> tuple[int | str, ...]:
    # The order of equal scores is that of the ids. Datasets that were joined may use an id twice, but never a path.
    return tuple(sample[key] for key in ("img_id", "img_path") if sample.get(key) is not None)


def _image_name(sample: Mapping[str, Any]) -> str:
    return str(sample.get("img_path") or sample["img_id"])


def _masks(masks: Any) -> list[dict[str, Any]]:
    """Return masks of any of mmdet's kinds as run lengths."""
    from pycocotools import mask as coding

    if isinstance(masks, torch.Tensor):
        masks = masks.detach().cpu().numpy()
    polygons = getattr(masks, "masks", None)
    if isinstance(polygons, list):  # mmdet's PolygonMasks: polygons of each object
        height, width = masks.height, masks.width
        return [coding.merge(coding.frPyObjects([part.tolist() for part in each], height, width)) for each in polygons]
    if hasattr(masks, "to_ndarray"):  # mmdet's BitmapMasks
        masks = masks.to_ndarray()
    return list(encode_masks(masks)) if len(masks) else []
