"""Check a config's data before any work: what a user would otherwise learn after an hour, from a worker."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from cvplugins.datasets import VOC_CLASSES, check_voc, read_split
from cvplugins.datasets.regular_files import stat_regular
from cvplugins.datasets.samples import draw_missing
from cvplugins.distributed import gather_objects
from cvplugins.errors import UserError

from .config import type_name, walk_dicts
from .image_checks import check_coco_images
from .image_readers import image_reader
from .segmentation_checks import check_segmentation_data

__all__ = ["check_data"]

logger = logging.getLogger(__name__)


class Split(NamedTuple):
    """One image list of a VOC devkit."""

    devkit: Path
    year: str
    name: str


def check_data(config: Config, loaders: tuple[str, ...], full: bool = False) -> None:
    """Check the datasets that the named loaders read; the first process of every node does it for all.

    VOC layouts and folders of label maps are checked file by file. With ``skip_broken = True`` in the config, VOC's
    broken images and annotations are left out: a list of the whole ones is written to the work dir and replaces the
    split. Of other datasets the annotation file has to exist, and the images of those in COCO's form are checked. A
    sample that is missing is drawn first.

    Args:
        config: A loaded config with ``work_dir``.
        loaders: Keys such as ``"train_dataloader"``.
        full: Whether to decode every image; else only headers are read.

    Raises:
        UserError: Something is missing or broken; on every process.
    """
    problem, whole_lists = None, {}
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        try:
            whole_lists = _check(config, loaders, full)
        except UserError as error:
            problem = str(error)
    gathered = gather_objects((problem, whole_lists))
    for problem, _ in gathered:
        if problem is not None:
            raise UserError(problem)
    whole_lists = gathered[0][1]
    for dataset in _datasets(config, loaders):
        dataset["ann_file"] = whole_lists.get(_voc_split(dataset), dataset["ann_file"])


def _check(config: Config, loaders: tuple[str, ...], full: bool) -> dict[Split | None, str]:
    """Check every dataset once; return the lists of whole images that replace splits with broken ones."""
    for root in {
        str(node["data_root"]) for name in loaders for node in walk_dicts(config.get(name)) if node.get("data_root")
    }:
        draw_missing(root)
    check_segmentation_data(config, loaders, full)
    whole_lists: dict[Split | None, str] = {}
    checked = set()
    for dataset in _datasets(config, loaders):
        split = _voc_split(dataset)
        ann_file = Path(dataset.get("data_root") or ".", dataset["ann_file"])
        if split is None and _is_local(dataset) and not ann_file.exists():
            raise UserError(f"{type_name(dataset)}: annotation file {ann_file.absolute()} does not exist")
        if _is_local(dataset) and not ann_file.is_dir():
            stat_regular(ann_file, "annotation file")
        reader = image_reader(dataset.get("pipeline"), full)
        if split is None or (split, reader) in checked:
            continue
        checked.add((split, reader))
        classes = (dataset.get("metainfo") or {}).get("classes") or VOC_CLASSES
        skip_broken = config.get("skip_broken", False)
        report = check_voc(
            split.devkit, [(split.year, split.name)], classes=classes, skip_broken=skip_broken, reader=reader
        )
        for warning in [each for found in report.splits for each in found.warnings]:
            logger.warning("%s %s: %s", split.year, split.name, warning)
        if report.broken:
            whole_lists[split] = _write_whole_list(split, dict(report.broken), Path(config.work_dir))
    check_coco_images(config, loaders, full)
    return whole_lists


def _write_whole_list(split: Split, broken: dict[str, str], work_dir: Path) -> str:
    for image_id, reason in broken.items():
        logger.warning("left out of %s %s: %s (%s)", split.year, split.name, image_id, reason)
    whole = [image_id for image_id in read_split(split.devkit, split.year, split.name) if image_id not in broken]
    path = (work_dir / "whole_images" / f"{split.year}_{split.name}.txt").absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{image_id}\n" for image_id in whole))
    return str(path)


def _datasets(config: Config, loaders: tuple[str, ...]) -> Iterator[dict]:
    for loader in loaders:
        for node in walk_dicts(config.get(loader)):
            if node.get("ann_file") and "type" in node:
                yield node


def _voc_split(dataset: dict) -> Split | None:
    """Return where a VOCDataset of the standard layout reads its images from."""
    ann_file = Path(dataset["ann_file"])
    standard = len(ann_file.parts) == 4 and ann_file.parts[1:3] == ("ImageSets", "Main")
    if type_name(dataset) != "VOCDataset" or not standard or not _is_local(dataset):
        return None
    return Split(Path(dataset.get("data_root") or "."), ann_file.parts[0], ann_file.stem)


def _is_local(dataset: dict) -> bool:
    """Return whether the files lie on this machine, where they can be checked."""
    return not dataset.get("backend_args") and "://" not in str(dataset.get("data_root"))
