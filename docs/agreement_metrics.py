"""The metrics of mmdet, mmseg and Detectron2 beside ours, on the same detections and label maps."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from agreement_inputs import (
    Found,
    coco_file,
    coco_samples,
    detectron2_dataset,
    detectron2_outputs,
    label_maps,
    mmdet_samples,
    noisy_detections,
)

from cvplugins.datasets import VOC_CLASSES

__all__ = ["Comparison", "metric_comparisons"]

LABELS = ("sky", "sea", "rock", "sand", "tree", "road", "wall", "never")


@dataclass(frozen=True)
class Comparison:
    """One number by four evaluators, in per cent.

    Attributes:
        number: What it is called.
        openmmlab: Of mmdet's or mmseg's metric; None if it has none.
        detectron2: Of Detectron2's evaluator.
        as_openmmlab: Ours, by OpenMMLab's adapter, with the rule that stands for theirs.
        as_detectron2: Ours, by Detectron2's adapter.
        rules: The two rules.
        decimals: To which OpenMMLab's metric rounds, in per cent; None if it does not.
        differs: Where the two frameworks differ.
    """

    number: str
    openmmlab: float | None
    detectron2: float
    as_openmmlab: float | None
    as_detectron2: float
    rules: tuple[str, str]
    decimals: int | None = None
    differs: str = ""


def metric_comparisons() -> list[Comparison]:
    """Return all comparisons."""
    found = noisy_detections()
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as folder:
        return [*_voc(found), *_coco(found, Path(folder)), *_segmentation(Path(folder))]


def _voc(found: dict[str, Found]) -> Iterator[Comparison]:
    from detectron2.evaluation import PascalVOCDetectionEvaluator
    from mmdet.evaluation import VOCMetric

    from cvplugins.detectron2 import CvpluginsDetectionEvaluator
    from cvplugins.openmmlab.metrics.detection import VOCDetectionMetric

    samples, outputs = mmdet_samples(found), detectron2_outputs(found)
    meta = {"classes": VOC_CLASSES, "dataset_type": "VOC"}
    for year, mode, of_mmdet, of_detectron2 in (
        (2007, "11points", "voc2007", "detectron2"),
        (2012, "area", "voc2012", "detectron2_2012"),
    ):
        theirs = _of_openmmlab(VOCMetric(eval_mode=mode), samples, meta)["mAP"]
        ours = _of_openmmlab(VOCDetectionMetric(rules=[of_mmdet]), samples, meta)["AP50"]
        with detectron2_dataset("cvplugins_agreement", year=year) as name:
            of_evaluator = _of_detectron2(PascalVOCDetectionEvaluator(name), *outputs)["bbox"]
            as_evaluator = _of_detectron2(CvpluginsDetectionEvaluator(name), *outputs)["bbox"]
        yield Comparison(
            f"AP50, VOC {year}",
            100 * theirs,
            of_evaluator["AP50"],
            100 * ours,
            100 * as_evaluator["AP50"],
            (of_mmdet, of_detectron2),
            differs="an IoU of 0.5 is enough in mmdet, not in Detectron2, which also rounds scores to 3 decimals and "
            "boxes to 1",
        )
        yield Comparison(
            f"AP, VOC {year}",
            None,
            of_evaluator["AP"],
            None,
            100 * as_evaluator["AP"],
            (of_mmdet, of_detectron2),
            differs="mmdet's `VOCMetric` has one IoU a metric",
        )


def _coco(found: dict[str, Found], folder: Path) -> Iterator[Comparison]:
    from detectron2.evaluation import COCOEvaluator
    from mmdet.evaluation import CocoMetric

    from cvplugins.detectron2 import CvpluginsDetectionEvaluator
    from cvplugins.openmmlab.metrics.detection import DetectionMetric

    path = folder / "coco.json"
    numbers = coco_file(path)
    of_number = {numbers[image]: each for image, each in found.items()}
    meta, outputs = {"classes": VOC_CLASSES}, detectron2_outputs(of_number)
    samples = coco_samples(of_number)
    theirs = _of_openmmlab(CocoMetric(ann_file=str(path)), samples, meta)
    ours = _of_openmmlab(DetectionMetric(rules=["coco_mmdet"], ann_file=path), samples, meta)
    with detectron2_dataset("cvplugins_agreement", json_file=path) as name:
        evaluator = COCOEvaluator(name, ("bbox",), False, use_fast_impl=False, output_dir=str(folder))
        of_evaluator = _of_detectron2(evaluator, *outputs)["bbox"]
        as_evaluator = _of_detectron2(CvpluginsDetectionEvaluator(name), *outputs)["bbox"]
    for here, mmdet, detectron2 in (
        ("AP", "bbox_mAP", "AP"),
        ("AP50", "bbox_mAP_50", "AP50"),
        ("AP75", "bbox_mAP_75", "AP75"),
        ("AP_small", "bbox_mAP_s", "APs"),
        ("AP_medium", "bbox_mAP_m", "APm"),
    ):
        yield Comparison(
            f"{here}, COCO",
            100 * theirs[mmdet],
            of_evaluator[detectron2],
            100 * ours[here],
            100 * as_evaluator[here],
            ("coco_mmdet", "coco"),
            decimals=1,
        )


def _segmentation(folder: Path) -> Iterator[Comparison]:
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.evaluation import SemSegEvaluator
    from mmseg.evaluation import IoUMetric
    from PIL import Image

    from cvplugins.detectron2 import CvpluginsSegmentationEvaluator
    from cvplugins.openmmlab.metrics.segmentation import SegmentationMetric

    samples, records, outputs = [], [], []
    for number, (label, scores) in enumerate(label_maps()):
        path = folder / f"{number}.png"
        Image.fromarray(label).save(path)
        records.append({"file_name": f"{number}.jpg", "sem_seg_file_name": str(path)})
        outputs.append({"sem_seg": torch.from_numpy(scores)})
        samples.append(
            {
                "img_path": f"{number}.jpg",
                "pred_sem_seg": {"data": torch.from_numpy(scores.argmax(0)[None])},
                "gt_sem_seg": {"data": torch.from_numpy(label[None].astype(np.int64))},
            }
        )
    meta = {"classes": LABELS}
    theirs = _of_openmmlab(IoUMetric(), samples, meta)
    ours = _of_openmmlab(SegmentationMetric(rule="mmseg"), samples, meta)
    name = "cvplugins_agreement"
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(stuff_classes=list(LABELS), ignore_label=255)
    try:
        of_evaluator = _of_detectron2(SemSegEvaluator(name, distributed=False), records, outputs)["sem_seg"]
        as_evaluator = _of_detectron2(CvpluginsSegmentationEvaluator(name), records, outputs)["sem_seg"]
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    never = "a class that is predicted but never true counts 0 in mmseg and is left out in Detectron2"
    for here, detectron2, differs in (
        ("mIoU", "mIoU", never),
        ("mAcc", "mACC", "its accuracy is undefined; both leave it out"),
        ("aAcc", "pACC", ""),
    ):
        yield Comparison(
            here,
            theirs[here],
            of_evaluator[detectron2],
            100 * ours[here],
            100 * as_evaluator[here],
            ("mmseg", "detectron2"),
            decimals=2,
            differs=differs,
        )


def _of_openmmlab(metric: Any, samples: list[dict[str, Any]], meta: dict[str, Any]) -> dict[str, float]:
    """Return what a metric of mmengine computes, without the prefix."""
    metric.dataset_meta = meta
    metric.process({}, samples)
    return {name.rpartition("/")[2]: value for name, value in metric.compute_metrics(metric.results).items()}


def _of_detectron2(evaluator: Any, inputs: list[Any], outputs: list[Any]) -> dict[str, dict[str, float]]:
    evaluator.reset()
    evaluator.process(inputs, outputs)
    result: dict[str, dict[str, float]] = evaluator.evaluate()
    return result
