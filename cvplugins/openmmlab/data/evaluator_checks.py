"""Compare the annotation files of metrics with the dataset that is evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from cvplugins.datasets import read_coco_annotations
from cvplugins.errors import DataError, UserError
from cvplugins.openmmlab.run.config import type_name, walk_dicts

from .coco_checks import CocoFile, check_once, read_coco_file
from .dataset_checks import CheckedDataset

__all__ = ["check_evaluators"]

EVALUATORS = {"val_dataloader": "val_evaluator", "test_dataloader": "test_evaluator"}


def check_evaluators(config: Config, loader: str, checked: Sequence[CheckedDataset]) -> None:
    """Check that labels and images mean the same in a metric's ``ann_file`` as in the dataset.

    Args:
        config: A loaded config.
        loader: ``"val_dataloader"`` or ``"test_dataloader"``; nothing is checked for others.
        checked: The loader's datasets.

    Raises:
        UserError: A file is missing or broken, numbers its classes differently, or lacks an image.
    """
    named = [each for each in checked if each.classes]
    if loader not in EVALUATORS or not named:
        return
    for key, path, metric in _files(config, EVALUATORS[loader]):
        if not path.is_file():
            raise UserError(f"{key}: {path.absolute()} does not exist")
        _check_content(path, metric)
        file = _known(named, path) or read_coco_file(path)
        classes = named[0].classes or ()
        if metric.get("sort_categories"):
            file = CocoFile(path, tuple(sorted(file.categories, key=lambda each: each[1])), file.images, [])
        file.check_labels(classes, f"{named[0].dataset.key}, for which {key} is read")
        for each in named:
            _check_images(each, file, key)


def _check_content(path: Path, metric: dict[str, Any]) -> None:
    """Read a metric's file as the metric will, which it does only at the end of a validation."""
    name, kinds = type_name(metric), metric.get("metric", "bbox")
    masks = name == "InstanceSegmentationMetric" or (name == "CocoMetric" and "segm" in kinds)
    # pycocotools takes neither for granted.
    required = ("area", "iscrowd") if name == "CocoMetric" else ()
    check_once(path, "evaluated" if masks else "unread", required)
    if name in ("DetectionMetric", "InstanceSegmentationMetric"):
        read_coco_annotations(path)


def _files(config: Config, evaluator: str) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Yield the key and the path of each COCO file that a metric reads, and the metric."""
    metrics = config.get(evaluator) or ()
    for number, metric in enumerate(metrics if isinstance(metrics, (list, tuple)) else [metrics]):
        for node in walk_dicts(metric):
            path = node.get("ann_file")
            is_local = not node.get("backend_args") and "://" not in str(path)
            if isinstance(path, str) and path.endswith(".json") and is_local and "type" in node:
                place = f"{evaluator}.{number}" if isinstance(metrics, (list, tuple)) else evaluator
                yield f"{place}.ann_file ({type_name(node)})", Path(path), node


def _known(checked: Sequence[CheckedDataset], path: Path) -> CocoFile | None:
    files = [each.coco for each in checked if each.coco is not None]
    return next((file for file in files if file.path.resolve() == path.resolve()), None)


def _check_images(checked: CheckedDataset, file: CocoFile, key: str) -> None:
    if checked.coco is None or checked.coco is file:
        return
    missing = [image for image in checked.coco.images if image not in file.images]
    if missing:
        name = checked.coco.images[missing[0]]["file_name"]
        raise DataError(
            f"{key}: {file.path} lacks {len(missing)} of the {len(checked.coco.images)} images of {checked.coco.path}, "
            f"such as id {missing[0]} ({name}); name the file that {checked.dataset.key} reads"
        )
    for image, entry in checked.coco.images.items():
        there = file.images[image]["file_name"]
        if Path(str(there)).name != Path(str(entry["file_name"])).name:
            raise DataError(
                f"{key}: image {image} is {there} in {file.path}, but {entry['file_name']} in {checked.coco.path}"
            )
