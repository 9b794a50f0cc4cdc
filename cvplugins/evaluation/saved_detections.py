"""Detections that were written to files: COCO's JSON, PASCAL VOC's text files, and mmdet's pickle."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cvplugins.datasets import CocoObjects, DataError, VocDetections, read_coco_results, read_voc_results
from cvplugins.errors import UserError, first_line
from cvplugins.metrics import (
    DetectionMetric,
    DetectionResult,
    DetectionRule,
    ImageDetections,
    ImageMasks,
    InstanceSegmentationMetric,
    detection_rule,
)

from .truths import Truths

__all__ = ["SavedDetections", "evaluate_detections", "read_detections"]


@dataclass(frozen=True)
class SavedDetections:
    """What was detected.

    Attributes:
        images: Of each image, by its number or name: ``scores``, ``labels`` and ``boxes``, ``masks`` or both;
            ``sizes`` where the file has widths and heights.
        has_boxes: Whether there are boxes.
        has_masks: Whether there are masks.
    """

    images: dict[int | str, dict[str, Any]]
    has_boxes: bool
    has_masks: bool


def read_detections(path: str | os.PathLike[str], truths: Truths, *, trust_pickle: bool = False) -> SavedDetections:
    """Read detections.

    Args:
        path: ``.json`` in COCO's format for results, a folder of PASCAL VOC's ``comp4`` text files, or the ``.pkl``
            that mmdet's ``tools/test.py --out`` writes.
        truths: The annotations that they belong to.
        trust_pickle: Whether a pickle may be opened, which can run any code.

    Raises:
        DataError: A file is missing or broken.
        UserError: The kind of file does not fit the annotations, or a pickle is not trusted.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: does not exist")
    if path.suffix == ".json":
        if truths.coco is None:
            raise UserError(f"{path}: COCO's results name images by numbers; they need COCO annotations (a .json file)")
        return _of_coco(read_coco_results(path, truths.coco), truths)
    if path.suffix in (".pkl", ".pickle"):
        if not trust_pickle:
            raise UserError(
                f"{path}: opening a pickle runs whatever code is in it; give --trust-pickle if you wrote the file, or "
                "save the predictions as COCO JSON (mmdet: CocoMetric with format_only=True and outfile_prefix)"
            )
        return _of_mmdet(path, truths)
    if path.is_dir():
        return _of_voc(read_voc_results(path, truths.classes))
    raise UserError(f"{path}: expected .json, .pkl or a folder of text files")


def evaluate_detections(
    found: SavedDetections,
    truths: Truths,
    *,
    rules: Sequence[str | DetectionRule | Mapping[str, Any]] | None = None,
    iou_thresholds: Sequence[float] | None = None,
    score_threshold: float = 0.5,
    masks: bool | None = None,
) -> DetectionResult:
    """Evaluate detections; images without any are part of it.

    Args:
        found: What was detected.
        truths: What is there.
        rules: What :func:`cvplugins.metrics.detection_rule` takes; ``"coco"`` for COCO's annotations, ``"voc2007"``,
            ``"voc2012"`` and ``"coco"`` for PASCAL VOC's if None.
        iou_thresholds: Overlaps that make a match, rising, instead of those of every rule; theirs if None.
        score_threshold: See :class:`cvplugins.metrics.DetectionMetric`.
        masks: Whether to compare masks; if there are any if None.

    Raises:
        UserError: Masks are wanted and missing, an image is not one of the annotations', or a value is wrong.
    """
    wanted = found.has_masks and truths.coco is not None if masks is None else masks
    if wanted and (not found.has_masks or truths.coco is None):
        raise UserError("masks need predictions with a segmentation, and COCO annotations")
    if not wanted and not found.has_boxes and found.images:
        raise UserError("the predictions hold no boxes; compare masks")
    unknown = [image for image in found.images if image not in truths.images]
    if unknown:
        raise UserError(f"the predictions name image {unknown[0]!r}, which the annotations do not list")
    if rules is None:
        rules = ("voc2007", "voc2012", "coco") if truths.coco is None else ("coco",)
    try:
        # Boxes of PASCAL VOC lie here as mmdet has them: pixels count from 0 at both corners.
        changes: dict[str, Any] = {"first_pixel": 0.0}
        if iou_thresholds is not None:
            changes["iou_thresholds"] = tuple(iou_thresholds)
        chosen = [detection_rule({**vars(detection_rule(rule)), **changes}) for rule in rules]
        metric = (InstanceSegmentationMetric if wanted else DetectionMetric)(truths.classes, chosen, score_threshold)
        for image, truth in truths.images.items():
            own = found.images.get(image, _NOTHING)
            metric.update(_masks(image, own, truth, truths) if wanted else _boxes(image, own, truth))  # type: ignore[arg-type]
    except ValueError as error:
        raise UserError(first_line(error)) from error
    return metric.compute()


_NOTHING: dict[str, Any] = {"boxes": np.zeros((0, 4)), "masks": [], "scores": [], "labels": []}


def _boxes(image: int | str, own: Mapping[str, Any], truth: Mapping[str, Any]) -> ImageDetections:
    return ImageDetections(image, own["boxes"], own["scores"], own["labels"], sizes=own.get("sizes"), **truth)


def _masks(image: int | str, own: Mapping[str, Any], truth: Mapping[str, Any], truths: Truths) -> ImageMasks:
    if truths.coco is None or not isinstance(image, int):
        raise UserError("masks need COCO annotations")
    others = {name: value for name, value in truth.items() if name not in ("truth_boxes", "truth_sizes")}
    true_masks = truths.coco.images[image].masks(*truths.coco.sizes[image])
    return ImageMasks.from_masks(
        image, masks=own["masks"], scores=own["scores"], labels=own["labels"], truth_masks=true_masks, **others
    )


def _of_coco(results: Mapping[int, CocoObjects], truths: Truths) -> SavedDetections:
    has_masks = any(len(found.segmentations) for found in results.values())
    images: dict[int | str, dict[str, Any]] = {}
    for image, found in results.items():
        images[image] = {
            "boxes": found.boxes,
            "sizes": found.xywh[:, 2:],
            "scores": found.scores,
            "labels": found.labels,
        }
        if has_masks and truths.coco is not None:
            images[image]["masks"] = found.masks(*truths.coco.sizes[image])
    return SavedDetections(images, any(found.boxes.any() for found in results.values()), has_masks)


def _of_voc(results: Mapping[str, VocDetections]) -> SavedDetections:
    images: dict[int | str, dict[str, Any]] = {
        image: {"boxes": boxes - 1, "scores": scores, "labels": labels}
        for image, (boxes, scores, labels) in results.items()
    }
    return SavedDetections(images, has_boxes=True, has_masks=False)


def _of_mmdet(path: Path, truths: Truths) -> SavedDetections:
    try:
        with path.open("rb") as file:
            samples = pickle.load(file)  # the caller trusts it
    except (OSError, EOFError, pickle.UnpicklingError, ImportError, AttributeError) as error:
        raise DataError(f"{path}: cannot be opened: {first_line(error)}") from error
    if not isinstance(samples, list) or not all(
        isinstance(each, Mapping) and "pred_instances" in each for each in samples
    ):
        raise DataError(f"{path}: holds no list of mmdet's predictions, each with pred_instances")
    images: dict[int | str, dict[str, Any]] = {}
    for number, sample in enumerate(samples):
        image = sample.get("img_id")
        if image not in truths.images:
            raise DataError(f"{path}: entry {number} is of image {image!r}, which the annotations do not list")
        own = sample["pred_instances"]
        images[image] = {
            "boxes": np.asarray(own["bboxes"]),
            "scores": np.asarray(own["scores"]),
            "labels": np.asarray(own["labels"]),
        }
        if "masks" in own:
            images[image]["masks"] = own["masks"]
    has_masks = any("masks" in own for own in images.values())
    return SavedDetections(images, has_boxes=True, has_masks=has_masks)
