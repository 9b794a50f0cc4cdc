"""Check a config's data before any work: what a user would otherwise learn after an hour, from a worker."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config

from cvplugins.datasets import read_image_list
from cvplugins.datasets.findings import Step, stop_at_first
from cvplugins.distributed import gather_objects, rank
from cvplugins.errors import UserError
from cvplugins.openmmlab.run.config import walk_dicts
from cvplugins.samples.drawing import draw_missing

from .changes import Changes
from .class_checks import check_classes, check_heads_of
from .coco_checks import forget_checks
from .dataset_checks import CheckedDataset, check_counts, check_dataset
from .dataset_nodes import DatasetNode, class_of, dataset_nodes, given_classes
from .evaluator_checks import check_evaluators
from .image_checks import check_coco_images
from .segmentation_checks import check_segmentation_data
from .segmentation_files import check_image_suffixes, clean_lists
from .written_lists import FOLDER, WrittenLists

__all__ = ["check_data", "examine_data"]


def check_data(
    config: Config, loaders: tuple[str, ...], full: bool = False, lists: str | os.PathLike[str] | None = None
) -> Changes:
    """Check the datasets that the named loaders read; the first process of every node does it for all.

    PASCAL VOC's and COCO's annotations and folders of label maps are checked as the framework's loaders will read them:
    files, class names, what labels mean, and boxes. The config stays as it is. A sample that is missing is drawn first.

    Args:
        config: A loaded config with ``work_dir``.
        loaders: Keys such as ``"train_dataloader"``.
        full: Whether to decode every image; else only headers are read.
        lists: The folder for lists of images; one in the work dir if None.

    Returns:
        What has to be changed in the config before it is built: a list of images that its loader would misread (a byte
        order mark, trailing blanks, flags) is replaced by a clean one. With ``skip_broken = True`` in the config, VOC's
        broken images are left out of that list, and boxes that training cannot use by a step in the pipeline.

    Raises:
        UserError: Something is missing, broken or contradictory; on every process.
    """
    problem, changes = None, Changes()
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        try:
            changes = examine_data(config, loaders, full, lists or Path(config.work_dir) / FOLDER)
        except UserError as error:
            problem = str(error)
    gathered = gather_objects((problem, changes))
    for problem, _ in gathered:
        if problem is not None:
            raise UserError(problem)
    # Each node's first process has checked its own files, and written lists on its own disk.
    return gathered[rank() - int(os.environ.get("LOCAL_RANK", 0))][1]


def examine_data(
    config: Config,
    loaders: tuple[str, ...],
    full: bool,
    lists: str | os.PathLike[str],
    step: Step = stop_at_first,
) -> Changes:
    """Check every dataset in this process, and return what has to be changed.

    Args:
        config: A loaded config.
        loaders: Keys such as ``"train_dataloader"``.
        full: Whether to decode every image.
        lists: The folder for lists of images.
        step: Returns a context for each step of the check, which raises its error or takes it; the first one is raised
            if not given.

    Raises:
        UserError: Something is missing, broken or contradictory.
    """
    forget_checks()
    for root in {
        str(node["data_root"]) for name in loaders for node in walk_dicts(config.get(name)) if node.get("data_root")
    }:
        draw_missing(root)
    classes = None
    with step("classes"):
        classes = check_classes(config, loaders)
    written, changes = WrittenLists(lists), Changes()
    with step("images"):
        check_image_suffixes(config, loaders)
    with step("lists"):
        changes.lists = clean_lists(config, loaders, written)
    check_segmentation_data(config, loaders, full, step)
    checked: list[CheckedDataset] = []
    if classes is not None:  # without them nothing can be said of objects
        for loader in loaders:
            checked += _check_loader(config, loader, classes, full, step)
            for dataset in dataset_nodes(config, loader):
                if isinstance(given_classes(dataset), str):
                    changes.classes[dataset.key] = classes[dataset.key]
    check_coco_images(config, loaders, full, step)
    for each in checked:
        _plan(changes, each, written)
    return changes


def _check_loader(
    config: Config, loader: str, classes: Mapping[str, tuple[str, ...]], full: bool, step: Step
) -> list[CheckedDataset]:
    known: list[CheckedDataset] = []
    nodes = list(dataset_nodes(config, loader))
    for dataset in nodes:
        with step("annotations and images"):
            found = _check_dataset(config, dataset, classes.get(dataset.key), full)
            if found is not None:
                known.append(found)
    with step("objects"):
        check_counts(loader, known, bool(config.get("skip_broken")))
    with step("evaluators"):
        check_evaluators(config, loader, known)
    return known


def _check_dataset(
    config: Config, dataset: DatasetNode, classes: tuple[str, ...] | None, full: bool
) -> CheckedDataset | None:
    kind = class_of(dataset.node, config.get("default_scope"))
    checked = check_dataset(dataset, kind, classes, bool(config.get("skip_broken")), full)
    if checked is not None and classes is None and checked.classes:  # known only after it was loaded
        check_heads_of(config, dataset, checked.classes)
    return checked


def _plan(changes: Changes, checked: CheckedDataset, written: WrittenLists) -> None:
    """Decide what a dataset has to read in place of what the config says."""
    if checked.source is not None and (checked.broken or not checked.plain):
        listed = read_image_list(checked.source.image_list, checked.source.annotations).ids
        stem = "_".join(Path(checked.name).with_suffix("").parts[-2:]).replace(" ", "_")
        whole = (image_id for image_id in listed if image_id not in checked.broken)
        changes.lists[checked.dataset.key] = written.write(whole, stem)
    if checked.unusable and not checked.dataset.is_test:
        changes.filtered.append(checked.dataset.key)
