"""Detections that were written to files: COCO's JSON, PASCAL VOC's text files, and the pickle of a test."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cvplugins.datasets import CocoObjects, DataError, VocDetections, read_coco_results, read_voc_results, voc_pixels
from cvplugins.errors import UserError, first_line

from .pickled_detections import read_pickled_detections
from .truths import Truths

if TYPE_CHECKING:  # metrics bring torch, for which a mistake in a file need not wait
    from cvplugins.metrics import DetectionResult, DetectionRule, ImageDetections, ImageMasks

__all__ = ["SavedDetections", "compares_masks", "evaluate_detections", "read_detections"]


@dataclass(frozen=True)
class SavedDetections:
    """What was detected.

    Attributes:
        images: Of each image, by its number or name: ``scores``, ``labels`` and ``boxes``, ``masks`` or both;
            ``sizes`` where the file has widths and heights.
        has_boxes: Whether there are boxes.
        has_masks: Whether there are masks.
        path: Where it was read from.
    """

    images: dict[int | str, dict[str, Any]]
    has_boxes: bool
    has_masks: bool
    path: str = "the predictions"


def read_detections(
    path: str | os.PathLike[str], truths: Truths, *, trust_pickle: bool = False, masks: bool = True
) -> SavedDetections:
    """Read detections.

    Args:
        path: ``.json`` in COCO's format for results, a folder of PASCAL VOC's ``comp4`` text files, or the ``.pkl``
            that ``tools/test.py --out`` writes, ours or mmdet's.
        truths: The annotations that they belong to.
        trust_pickle: Whether a pickle may be opened, which can run any code.
        masks: Whether masks are read, where there are any.

    Raises:
        DataError: A file is missing or broken.
        UserError: The kind of file does not fit the annotations, or a pickle is not trusted.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: does not exist")
    if path.is_dir():
        return _of_voc(path, read_voc_results(path, truths.classes, truths.images))
    if path.suffix == ".json":
        if truths.coco is None:
            raise UserError(f"{path}: COCO's results name images by numbers; they need COCO annotations (a .json file)")
        return _of_coco(path, read_coco_results(path, truths.coco), truths, masks)
    if path.suffix in (".pkl", ".pickle"):
        if not trust_pickle:
            raise UserError(
                f"{path}: opening a pickle runs whatever code is in it; give --trust-pickle if you wrote the file, or "
                "save the predictions as COCO JSON (mmdet: CocoMetric with format_only=True and outfile_prefix)"
            )
        images = read_pickled_detections(path, truths, masks=masks)
        has_masks = any("masks" in own for own in images.values())
        return SavedDetections(images, has_boxes=True, has_masks=has_masks, path=str(path))
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
    from cvplugins.metrics import DetectionMetric, InstanceSegmentationMetric, detection_rule

    if not math.isfinite(score_threshold):
        raise UserError(f"the score threshold is {score_threshold}; expected a number")
    wanted = compares_masks(found, truths) if masks is None else masks
    _require_parts(found, truths, wanted)
    unknown = [image for image in found.images if image not in truths.images]
    if unknown:
        raise UserError(f"{found.path}: names image {unknown[0]!r}, which the annotations do not list")
    if rules is None:
        rules = ("voc2007", "voc2012", "coco") if truths.coco is None else ("coco",)
    try:
        chosen = [detection_rule(rule) for rule in rules]
        if iou_thresholds is not None:
            chosen = [replace(rule, iou_thresholds=tuple(iou_thresholds)) for rule in chosen]
        metric = (InstanceSegmentationMetric if wanted else DetectionMetric)(truths.classes, chosen, score_threshold)
    except ValueError as error:
        raise UserError(first_line(error)) from error
    try:
        for image, truth in truths.images.items():
            own = found.images.get(image, _NOTHING)
            metric.update(_masks(image, own, truth, truths) if wanted else _boxes(image, own, truth))  # type: ignore[arg-type]
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{found.path}: {first_line(error)}") from error
    return metric.compute()


def compares_masks(found: SavedDetections, truths: Truths) -> bool:
    """Return whether detections and annotations both have masks."""
    return found.has_masks and truths.coco is not None


_NOTHING: dict[str, Any] = {"boxes": np.zeros((0, 4)), "masks": [], "scores": [], "labels": []}


def _require_parts(found: SavedDetections, truths: Truths, masks: bool) -> None:
    """Raise unless both sides have masks, or both have boxes."""
    objects = [] if truths.coco is None else [each for each in truths.coco.images.values() if len(each.labels)]
    if masks:
        if not found.has_masks or truths.coco is None:
            raise UserError("masks need predictions with a segmentation, and COCO annotations")
        if not all(len(each.segmentations) for each in objects):
            raise UserError(f"{truths.coco.path}: has no 'segmentation' to compare masks with; give --boxes for boxes")
        return
    if not found.has_boxes and found.images:
        raise UserError(f"{found.path}: holds no boxes; compare masks")
    if truths.coco is not None and not all(each.has_boxes for each in objects):
        raise UserError(f"{truths.coco.path}: has no 'bbox' to compare boxes with")


def _boxes(image: int | str, own: Mapping[str, Any], truth: Mapping[str, Any]) -> ImageDetections:
    from cvplugins.metrics import ImageDetections

    return ImageDetections(image, own["boxes"], own["scores"], own["labels"], sizes=own.get("sizes"), **truth)


def _masks(image: int | str, own: Mapping[str, Any], truth: Mapping[str, Any], truths: Truths) -> ImageMasks:
    from cvplugins.metrics import ImageMasks

    if truths.coco is None:
        raise UserError("masks need COCO annotations")
    others = {name: value for name, value in truth.items() if name not in ("truth_boxes", "truth_sizes")}
    true_masks = truths.coco.images[image].masks(*truths.coco.sizes[image])
    return ImageMasks.from_masks(
        image, masks=own["masks"], scores=own["scores"], labels=own["labels"], truth_masks=true_masks, **others
    )


def _of_coco(path: Path, results: Mapping[int | str, CocoObjects], truths: Truths, masks: bool) -> SavedDetections:
    has_masks = masks and any(len(found.segmentations) for found in results.values())
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
    return SavedDetections(images, all(found.has_boxes for found in results.values()), has_masks, str(path))


def _of_voc(path: Path, results: Mapping[str, VocDetections]) -> SavedDetections:
    images: dict[int | str, dict[str, Any]] = {
        image: {"boxes": np.stack(voc_pixels(*boxes.T), axis=1), "scores": scores, "labels": labels}
        for image, (boxes, scores, labels) in results.items()
    }
    return SavedDetections(images, has_boxes=True, has_masks=False, path=str(path))
