"""Evaluators: what a model gives to plain arrays, once; the core computes; table, JSON and figures from its result."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from cvplugins.errors import UserError
from cvplugins.metrics import (
    DetectionMetric,
    ImageDetections,
    ImageMasks,
    InstanceSegmentationMetric,
    SegmentationMetric,
    detection_rule,
)
from cvplugins.reporting import result_table, write_results

from .ground_truth import dataset_truths, label_reader

__all__ = [
    "CvpluginsDetectionEvaluator",
    "CvpluginsInstanceSegmentationEvaluator",
    "CvpluginsSegmentationEvaluator",
]


class _PluginEvaluator(DatasetEvaluator):
    """What the evaluators share: reset, gather over processes, log and write.

    A subclass fills ``self.metric`` in :meth:`process`; only the main process computes.
    """

    prefix: str

    def __init__(self, out_dir: str | os.PathLike[str] | None) -> None:
        self.out_dir = out_dir
        self.metric: Any = None

    def new_metric(self) -> Any:
        """Return an empty metric."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """Return the names of the numbers that it can give: those of a metric of no image, where all are undefined."""
        return [f"{self.prefix}/{name}" for name in self.new_metric().compute().numbers()]

    def reset(self) -> None:
        """Forget all images."""
        self.metric = self.new_metric()

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Return the numbers of all processes under the task's name, on the main process; None on the others."""
        parts = comm.gather(self.metric)
        if not comm.is_main_process():
            return None
        whole = self.new_metric()
        for part in parts:
            whole.merge(part)
        result = whole.compute()
        logging.getLogger(__name__).info("\n%s", result_table(result))
        if self.out_dir is not None:
            write_results(result, self.out_dir, self.prefix)
        return {self.prefix: result.scalars()}


class CvpluginsDetectionEvaluator(_PluginEvaluator):
    """Everything about boxes; see :class:`cvplugins.metrics.DetectionMetric`.

    Takes the place of ``PascalVOCDetectionEvaluator`` (rule ``"detectron2"``) and of ``COCOEvaluator`` for boxes (rule
    ``"coco"``), for any dataset with ``thing_classes`` in the catalog. Returns ``{"bbox": {"AP": ..., "AP50": ...}}``
    in shares of 1, where Detectron2 gives per cent.

    Args:
        dataset_name: A registered dataset.
        rules: What :func:`cvplugins.metrics.detection_rule` takes; ``"detectron2"`` for PASCAL VOC and ``"coco"`` for
            others if None. The first one decides operating points and errors.
        score_threshold: Where to measure precision, recall, F1, false positives per image and errors.
        out_dir: Folder for JSON and figures; none if None.

    Raises:
        UserError: The dataset names no classes.
        ValueError: A rule is unknown.
    """

    prefix = "bbox"
    core: type[DetectionMetric] = DetectionMetric

    def __init__(
        self,
        dataset_name: str,
        rules: Sequence[str | Mapping[str, Any]] | None = None,
        score_threshold: float = 0.5,
        out_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(out_dir)
        self.truths, self.annotations = dataset_truths(dataset_name)
        metadata = MetadataCatalog.get(dataset_name)
        if not getattr(metadata, "thing_classes", None):
            raise UserError(f"dataset {dataset_name} names no thing_classes in its metadata")
        self.classes = list(metadata.thing_classes)
        if rules is None:
            rules = ["detectron2" if metadata.get("year") == 2007 else "detectron2_2012"]
            if metadata.get("year") is None:
                rules = ["coco"]
        self.rules = [detection_rule(rule) for rule in ([rules] if isinstance(rules, str) else rules)]
        self.score_threshold = score_threshold
        self.reset()

    def new_metric(self) -> DetectionMetric:
        """Return an empty metric."""
        return self.core(self.classes, self.rules, self.score_threshold)

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Add the detections of some images."""
        for given, found in zip(inputs, outputs, strict=True):
            instances = found["instances"].to("cpu")
            self.metric.update(self._image(given["image_id"], instances))

    def _image(self, image_id: Any, instances: Any) -> ImageDetections | ImageMasks:
        boxes = instances.pred_boxes.tensor.numpy()
        return ImageDetections(
            image_id,
            boxes,
            instances.scores.numpy(),
            instances.pred_classes.numpy(),
            # In float32, as COCOEvaluator converts them.
            sizes=boxes[:, 2:] - boxes[:, :2],
            corners="edges",
            **self._truth(image_id),
        )

    def _truth(self, image_id: Any) -> dict[str, Any]:
        if image_id not in self.truths:
            raise UserError(f"image {image_id!r} is none of the dataset's; was another dataset fed to the model?")
        return self.truths[image_id]


class CvpluginsInstanceSegmentationEvaluator(CvpluginsDetectionEvaluator):
    """Everything about masks; see :class:`cvplugins.metrics.InstanceSegmentationMetric`.

    Takes the place of ``COCOEvaluator`` for masks. Returns ``{"segm": {"AP": ..., "AP50": ...}}`` in shares of 1.

    Args:
        dataset_name: A registered dataset with a COCO annotation file.
        rules: See :class:`CvpluginsDetectionEvaluator`; ``"coco"`` if None.
        score_threshold: See :class:`CvpluginsDetectionEvaluator`.
        out_dir: See :class:`CvpluginsDetectionEvaluator`.

    Raises:
        UserError: The dataset names no classes, or has no annotation file.
    """

    prefix = "segm"
    core = InstanceSegmentationMetric

    def __init__(
        self,
        dataset_name: str,
        rules: Sequence[str | Mapping[str, Any]] | None = None,
        score_threshold: float = 0.5,
        out_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(dataset_name, rules, score_threshold, out_dir)
        if self.annotations is None:
            raise UserError(f"dataset {dataset_name} has no json_file in its metadata, from which masks would be read")
        self._masks = self.annotations

    def _image(self, image_id: Any, instances: Any) -> ImageMasks:
        if not instances.has("pred_masks"):
            raise UserError(f"image {image_id}: the model predicts no masks (MODEL.MASK_ON)")
        boxes = ("truth_boxes", "truth_sizes")
        truth = {name: value for name, value in self._truth(image_id).items() if name not in boxes}
        size = self._masks.sizes[image_id]
        return ImageMasks.from_masks(
            image_id,
            masks=instances.pred_masks.numpy(),
            scores=instances.scores.numpy(),
            labels=instances.pred_classes.numpy(),
            truth_masks=self._masks.images[image_id].masks(*size),
            **truth,
        )


class CvpluginsSegmentationEvaluator(_PluginEvaluator):
    """Everything about label maps; see :class:`cvplugins.metrics.SegmentationMetric`.

    Takes the place of ``SemSegEvaluator``, whose mIoU, fwIoU, mACC and pACC it gives as ``mIoU``, ``fwIoU``, ``mAcc``
    and ``aAcc``. Returns ``{"sem_seg": {"mIoU": ...}}`` in shares of 1, where Detectron2 gives per cent.

    Args:
        dataset_name: A registered dataset with ``sem_seg_file_name``, ``stuff_classes`` and ``ignore_label``. Where its
            metadata says ``reduce_zero_label``, 0 in the label maps is no class and 1 the first one.
        rule: How classes without labels count: ``"detectron2"`` leaves them out.
        boundary: Also measure boundary IoU and F1.
        out_dir: Folder for JSON and figures; none if None.

    Raises:
        UserError: The dataset names no classes.
    """

    prefix = "sem_seg"

    def __init__(
        self,
        dataset_name: str,
        rule: str = "detectron2",
        boundary: bool = False,
        out_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(out_dir)
        self.read_label = label_reader(dataset_name)  # also sets the metadata of some datasets
        metadata = MetadataCatalog.get(dataset_name)
        if not getattr(metadata, "stuff_classes", None):
            raise UserError(f"dataset {dataset_name} names no stuff_classes in its metadata")
        self.classes = list(metadata.stuff_classes)
        self.options = {"ignore_index": metadata.get("ignore_label", 255), "rule": rule, "boundary": boundary}
        self.reset()

    def new_metric(self) -> SegmentationMetric:
        """Return an empty metric."""
        return SegmentationMetric(self.classes, **self.options)

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Count the pixels of some images."""
        for given, found in zip(inputs, outputs, strict=True):
            name = given["file_name"]
            self.metric.update(name, self.read_label(name), found["sem_seg"].argmax(dim=0).cpu())
