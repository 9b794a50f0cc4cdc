"""What ``cvplugins evaluate`` does with its arguments."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cvplugins.datasets import DataError
from cvplugins.datasets.text_files import read_text
from cvplugins.errors import UserError
from cvplugins.evaluation.label_pairs import label_pairs
from cvplugins.evaluation.saved_detections import compares_masks, evaluate_detections, read_detections
from cvplugins.evaluation.truths import read_truths
from cvplugins.paths import check_folder

__all__ = ["evaluate_saved"]


def evaluate_saved(
    predictions: str | os.PathLike[str],
    annotations: str | os.PathLike[str],
    *,
    split: str | None = None,
    classes: Sequence[str] | None = None,
    rules: Sequence[str] | None = None,
    iou_thresholds: Sequence[float] | None = None,
    score_threshold: float = 0.5,
    boxes: bool = False,
    boundary: bool = False,
    ignore_index: int = 255,
    reduce_zero_label: str = "none",
    out_dir: str | os.PathLike[str] | None = None,
    trust_pickle: bool = False,
) -> str:
    """Evaluate saved predictions and return the table; write JSON and figures into ``out_dir`` if it is given.

    A folder of PNG images against another one is semantic segmentation; everything else is detections, with masks if
    the predictions have them and ``boxes`` is not asked for.

    Args:
        predictions: COCO results (``.json``), a folder of VOC ``comp4`` files, mmdet's ``.pkl`` or a folder of PNGs.
        annotations: COCO annotations (``.json``), a folder such as ``VOCdevkit/VOC2007``, or a folder of PNGs.
        split: Which list of a VOC folder.
        classes: Names of the classes, or one name of a text file with one a line.
        rules: See :func:`evaluate_detections`.
        iou_thresholds: See :func:`evaluate_detections`.
        score_threshold: See :func:`evaluate_detections`.
        boxes: Compare boxes even where there are masks.
        boundary: Boundary measures of semantic segmentation.
        ignore_index: Label of pixels that do not count.
        reduce_zero_label: See :func:`evaluate_label_images`.
        out_dir: Where to write.
        trust_pickle: See :func:`read_detections`.

    Raises:
        UserError: Something is wrong with a file or an option.
    """
    if not math.isfinite(score_threshold):
        raise UserError(f"--score-threshold {score_threshold}: expected a number")
    names = _names(classes)
    folder = Path(out_dir) if out_dir is not None else None
    if folder is not None:
        check_folder(folder, "--out-dir")
    # What brings torch is imported when the files have been read: a mistake in them need not wait for it.
    if _holds_images(predictions):
        if iou_thresholds is not None:
            raise UserError(f"{predictions}: label images have no IoU thresholds; leave --iou-thresholds out")
        if names is None:
            raise UserError("label images do not name their classes: give --classes NAME ..., or a text file of names")
        label_pairs(predictions, annotations)
        from cvplugins.evaluation.label_images import evaluate_label_images

        segmented = evaluate_label_images(
            predictions,
            annotations,
            names,
            reduce_zero_label=reduce_zero_label,
            ignore_index=ignore_index,
            boundary=boundary,
        )
        return _report(segmented, folder, "sem_seg")
    truths = read_truths(annotations, split=split, classes=names)
    found = read_detections(predictions, truths, trust_pickle=trust_pickle, masks=not boxes)
    masks = not boxes and compares_masks(found, truths)
    result = evaluate_detections(
        found, truths, rules=rules, iou_thresholds=iou_thresholds, score_threshold=score_threshold, masks=masks
    )
    return _report(result, folder, "segm" if masks else "bbox")


def _report(result: Any, folder: Path | None, name: str) -> str:
    from cvplugins.reporting import result_table, write_results

    if folder is not None:
        write_results(result, folder, name)
    return result_table(result)


def _holds_images(path: str | os.PathLike[str]) -> bool:
    return Path(path).is_dir() and any(Path(path).rglob("*.png"))


def _names(classes: Sequence[str] | None) -> list[str] | None:
    if classes is None or len(classes) != 1 or not classes[0].endswith(".txt"):
        return None if classes is None else list(classes)
    names = [line.strip() for line in read_text(classes[0]).splitlines() if line.strip()]
    if not names:
        raise DataError(f"{classes[0]}: names no classes")
    return names
