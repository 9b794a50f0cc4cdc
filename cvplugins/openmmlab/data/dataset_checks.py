"""Check what a dataset of mmdet will load: files, objects and boxes, as its own class reads them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import ConfigDict
from mmengine.registry import DATASETS

from cvplugins.datasets import (
    ClassCounts,
    VOCSource,
    box_problem,
    check_objects,
    check_voc_folders,
    check_voc_source,
    read_image_list,
)
from cvplugins.datasets.regular_files import stat_regular
from cvplugins.errors import DataError, UserError, first_line
from cvplugins.openmmlab.run.config import type_name, walk_dicts

from .box_filter import filters_boxes
from .coco_checks import CocoFile, read_coco_file
from .dataset_nodes import DatasetNode, is_made_from
from .image_readers import image_reader
from .voc_checks import box_problem_of, voc_source

__all__ = ["CheckedDataset", "check_counts", "check_dataset"]

logger = logging.getLogger(__name__)

LISTED = 10


@dataclass
class CheckedDataset:
    """What the check of a dataset found.

    Attributes:
        dataset: The dataset.
        name: What messages call its data.
        classes: Its class names, if it has any.
        counts: Its objects.
        unusable: What is wrong with boxes that training cannot use.
        source: Its files, if they are PASCAL VOC's.
        plain: Whether its loader reads the list of images as it is.
        broken: Images to leave out, and why.
        coco: Its annotation file, if it is COCO's.
    """

    dataset: DatasetNode
    name: str
    classes: tuple[str, ...] | None
    counts: ClassCounts = field(default_factory=ClassCounts)
    unusable: list[str] = field(default_factory=list)
    source: VOCSource | None = None
    plain: bool = True
    broken: dict[str, str] = field(default_factory=dict)
    coco: CocoFile | None = None


def check_dataset(
    dataset: DatasetNode,
    kind: type | None,
    classes: tuple[str, ...] | None,
    skip_broken: bool = False,
    full: bool = False,
) -> CheckedDataset | None:
    """Check one dataset; None if nothing but its own loader can.

    Args:
        dataset: The dataset.
        kind: Its class.
        classes: Its class names.
        skip_broken: Whether broken images are left out.
        full: Whether to decode every image of PASCAL VOC's form.

    Raises:
        UserError: Something is missing or broken.
    """
    if not dataset.node.get("ann_file") or not dataset.is_local:
        return None
    if is_made_from(kind, "XMLDataset", ("load_data_list", "parse_data_info", "_parse_instance_info")):
        return _check_voc(dataset, classes, skip_broken, full)
    ann_file = dataset.path(dataset.node["ann_file"])
    if not ann_file.exists():
        raise UserError(f"{type_name(dataset.node)}: annotation file {ann_file.absolute()} does not exist")
    if not ann_file.is_dir():
        stat_regular(ann_file, "annotation file")
    if is_made_from(kind, "CocoDataset", ("load_data_list", "parse_data_info")):
        return _check_coco(dataset, classes or ())
    return _check_built(dataset, classes) if is_made_from(kind, "BaseDetDataset") else None


def check_counts(loader: str, checked: Sequence[CheckedDataset], skip_broken: bool) -> None:
    """Look at the objects of all datasets that a loader reads together.

    Args:
        loader: Its key.
        checked: Its datasets.
        skip_broken: Whether boxes that training cannot use are left out.

    Raises:
        UserError: Training would break on a box, a name is misspelt, or there is no object to learn from.
    """
    named = [each for each in checked if each.classes]
    if not named:
        return
    for each in named:
        logger.info("%s: %s", each.name, each.counts)
        _check_boxes(each, skip_broken)
    place = f"{loader} ({', '.join(dict.fromkeys(each.name for each in named))})"
    is_trained = not all(each.dataset.is_test for each in named)
    warning = check_objects(named[0].classes or (), [each.counts for each in named], place, is_trained)
    if warning:
        logger.warning(warning)


def _check_boxes(checked: CheckedDataset, skip_broken: bool) -> None:
    unusable, name = checked.unusable, checked.name
    if not unusable or filters_boxes(checked.dataset):
        return
    if checked.dataset.is_test:
        logger.warning("%s: %d boxes are empty or outside their image; %s", name, len(unusable), unusable[0])
        return
    if not skip_broken:
        raise DataError(
            f"{unusable[0]}. {name} has {len(unusable)} such objects, and their loss would be NaN. Mend them, or leave "
            "them out: skip_broken=True",
            unusable,
        )
    for problem in unusable[:LISTED]:
        logger.warning("object left out: %s", problem)
    logger.warning("%s: %d objects are left out, because training cannot use their boxes", name, len(unusable))


def _check_voc(dataset: DatasetNode, classes: tuple[str, ...] | None, skip_broken: bool, full: bool) -> CheckedDataset:
    if not classes:
        raise UserError(f"{dataset}: a dataset of XML files needs metainfo=dict(classes=(...))")
    source = voc_source(dataset)
    check_voc_folders(source)
    listed = read_image_list(source.image_list, source.annotations)
    split, broken = check_voc_source(
        source,
        classes=classes,
        skip_broken=skip_broken,
        reader=image_reader(dataset.node.get("pipeline"), full),
        box_problem=box_problem_of(dataset),
    )
    for warning in split.warnings:
        logger.warning("%s: %s", source.name, warning)
    for image_id, reason in broken:
        logger.warning("left out of %s: %s (%s)", source.name, image_id, reason)
    if listed.flagged:
        logger.info("%s: all images are taken, whatever their second column says", source.image_list)
    return CheckedDataset(
        dataset,
        source.name,
        classes,
        split.counts,
        [problem for _, problem in split.unusable],
        source,
        listed.plain,
        dict(broken),
    )


def _check_coco(dataset: DatasetNode, classes: tuple[str, ...]) -> CheckedDataset:
    loads_masks = any(step.get("with_mask") for step in walk_dicts(dataset.pipelines))
    file = read_coco_file(dataset.path(dataset.node["ann_file"]), "needed" if loads_masks else "unread")
    file.check_labels(classes, dataset.key)
    counts, unusable = file.check_boxes(classes)
    return CheckedDataset(dataset, str(file.path), classes, counts, unusable, coco=file)


def _check_built(dataset: DatasetNode, classes: tuple[str, ...] | None) -> CheckedDataset:
    """Let a dataset's own class load it, and look at its objects."""
    config = ConfigDict({**dataset.node, "pipeline": []})
    try:
        with DATASETS.switch_scope_and_registry(None) as registry:
            built = registry.build(config)
        infos = [built.get_data_info(index) for index in range(len(built))]
    except UserError:
        raise
    except Exception as error:  # the class may be anyone's
        raise UserError(f"{dataset}: cannot be loaded: {type(error).__name__}: {first_line(error)}") from error
    classes = classes or tuple(built.metainfo.get("classes") or ())
    checked = CheckedDataset(dataset, str(dataset), classes)
    for info in infos:
        for instance in info.get("instances", ()):
            _count(checked, info, instance)
    return checked


def _count(checked: CheckedDataset, info: dict[str, Any], instance: dict[str, Any]) -> None:
    label, classes = instance.get("bbox_label"), checked.classes or ()
    if "bbox" not in instance or not isinstance(label, int):
        return
    if not 0 <= label < len(classes):
        raise DataError(f"{checked.name}: {info.get('img_path')}: label {label}, but there are {len(classes)} classes")
    is_ignored = bool(instance.get("ignore_flag"))
    problem = None if is_ignored else box_problem(instance["bbox"], info.get("width"), info.get("height"))
    if problem:
        checked.unusable.append(f"{checked.name}: {info.get('img_path')}: object {classes[label]!r}: {problem}")
    checked.counts.add(classes[label], usable=not is_ignored and not problem)
