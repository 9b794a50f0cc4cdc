"""Check a config's data before any work: what a user would otherwise learn after an hour, from a worker."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from cvplugins.datasets import (
    ClassCounts,
    check_class_names,
    check_coco_file,
    check_voc_folders,
    check_voc_source,
    read_coco_annotations,
)
from cvplugins.datasets.findings import Step, stop_at_first
from cvplugins.datasets.regular_files import stat_regular
from cvplugins.detectron2.mask2former.config import is_mask2former
from cvplugins.distributed import gather_objects
from cvplugins.errors import UserError
from cvplugins.samples.drawing import draw_missing

from .ade20k import check_scenes
from .dataset_checks import check_counts, check_meanings, count_records, voc_box_problem
from .image_checks import check_records, image_reader
from .voc import PREFIX, devkit_of, voc_classes, voc_source

__all__ = ["check_data", "examine_data"]

logger = logging.getLogger(__name__)


def check_data(cfg: CfgNode, names: Sequence[str], full: bool = False) -> None:
    """Check datasets, file by file where they are PASCAL VOC's; the first process of every node does it for all.

    A sample that is missing is drawn first.

    Args:
        cfg: A config that :func:`register_voc` was called with.
        names: Of datasets.
        full: Whether to decode every image; else only headers are read.

    Raises:
        UserError: Something is unknown, missing or broken, or the model has another number of classes; on every
            process.
    """
    problem = None
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        try:
            examine_data(cfg, names, full)
        except UserError as error:
            problem = str(error)
    for found in gather_objects(problem):
        if found is not None:
            raise UserError(found)


def examine_data(cfg: CfgNode, names: Sequence[str], full: bool, step: Step = stop_at_first) -> None:
    """Check datasets in this process.

    Args:
        cfg: A config that :func:`register_voc` was called with.
        names: Of datasets.
        full: Whether to decode every image.
        step: Returns a context for each step of the check, which raises its error or takes it; the first one is raised
            if not given.

    Raises:
        UserError: Something is unknown, missing or broken.
    """
    draw_missing(cfg.CVPLUGINS.DATA.ROOT)
    with step("classes"):
        if cfg.CVPLUGINS.DATA.CLASSES:
            check_class_names(cfg.CVPLUGINS.DATA.CLASSES, "CVPLUGINS.DATA.CLASSES")
    counts = {}
    for name in dict.fromkeys(names):
        with step("annotations and images"):
            if name not in DatasetCatalog:
                raise UserError(f"DATASETS: there is no dataset {name!r}; {_similar(name)}")
            found = _check_dataset(cfg, name, full, step)
            if found is not None:
                counts[name] = found
        if name in DatasetCatalog:
            with step("classes"):
                _check_numbers(cfg, name)
    with step("classes"):
        # Those of training count in a test too, as far as Detectron2 knows them without loading.
        check_meanings(list(dict.fromkeys((*cfg.DATASETS.TRAIN, *names))))
    with step("objects"):
        check_counts(cfg, counts)


def _check_dataset(cfg: CfgNode, name: str, full: bool, step: Step) -> ClassCounts | None:
    metadata = MetadataCatalog.get(name)
    if name.startswith(PREFIX):
        return _check_voc(cfg, name, metadata, full)
    _check_files(name, metadata)
    with step("label maps"):
        check_scenes(name, metadata, cfg, full)
    if metadata.get("evaluator_type") == "coco" and "://" not in metadata.get("json_file", "://"):
        _check_coco(cfg, name, metadata.json_file)
    is_semantic = metadata.get("stuff_classes") and not metadata.get("thing_classes")
    found = None if is_semantic else count_records(name)
    if metadata.get("json_file"):
        with step("images"):
            check_records(cfg, name, full)
    return found


def _check_numbers(cfg: CfgNode, name: str) -> None:
    """Compare the number of classes of the model with a dataset's."""
    metadata = MetadataCatalog.get(name)
    for key, number, kind in _class_numbers(cfg):
        classes = metadata.get(kind) or []
        if classes and number != len(classes):
            raise UserError(
                f"{key} is {number}, but dataset {name} has {len(classes)} classes; set it to {len(classes)}"
                + (", or name the classes in CVPLUGINS.DATA.CLASSES" if name.startswith(PREFIX) else "")
            )


def _check_voc(cfg: CfgNode, name: str, metadata: Any, full: bool) -> ClassCounts:
    source = voc_source(devkit_of(cfg), f"VOC{metadata.year}", metadata.split)
    check_voc_folders(source)
    split, _ = check_voc_source(
        source,
        classes=voc_classes(cfg),
        skip_broken=cfg.CVPLUGINS.DATA.SKIP_BROKEN,
        reader=image_reader(cfg, name, full),
        box_problem=voc_box_problem,
    )
    for warning in split.warnings:
        logger.warning("%s: %s", name, warning)
    if split.unusable:
        first = split.unusable[0][1]
        logger.warning("%s: Detectron2 leaves out %d objects; the first one: %s", name, len(split.unusable), first)
    return split.counts


def _check_coco(cfg: CfgNode, name: str, path: str) -> None:
    """Read an annotation file as training will, and as the evaluators will."""
    if name in cfg.DATASETS.TEST:
        check_coco_file(path, masks="evaluated" if cfg.MODEL.MASK_ON else "optional")
        read_coco_annotations(path)
    else:
        check_coco_file(path, masks="needed" if cfg.MODEL.MASK_ON else "optional")


def _check_files(name: str, metadata: Any) -> None:
    for key in ("json_file", "dirname"):
        path = metadata.get(key)
        if path and "://" not in path and not Path(path).exists():
            raise UserError(
                f"dataset {name}: {Path(path).absolute()} does not exist; Detectron2's own datasets lie in "
                f"$DETECTRON2_DATASETS ({os.environ.get('DETECTRON2_DATASETS', 'not set: ./datasets')})"
            )
        if path and "://" not in path and key == "json_file":
            stat_regular(path, "annotation file")


def _class_numbers(cfg: CfgNode) -> Iterator[tuple[str, int, str]]:
    """Yield the keys for numbers of classes, the numbers, and which classes of a dataset's metadata they count."""
    model, architecture = cfg.MODEL, cfg.MODEL.META_ARCHITECTURE.removeprefix("Cvplugins")
    if architecture == "RetinaNet":
        yield "MODEL.RETINANET.NUM_CLASSES", model.RETINANET.NUM_CLASSES, "thing_classes"
    elif architecture in ("GeneralizedRCNN", "PanopticFPN"):
        yield "MODEL.ROI_HEADS.NUM_CLASSES", model.ROI_HEADS.NUM_CLASSES, "thing_classes"
        if architecture == "PanopticFPN":
            yield "MODEL.SEM_SEG_HEAD.NUM_CLASSES", model.SEM_SEG_HEAD.NUM_CLASSES, "stuff_classes"
    elif architecture == "SemanticSegmentor" or is_mask2former(cfg):
        kind = "thing_classes" if "_instance" in cfg.INPUT.get("DATASET_MAPPER_NAME", "") else "stuff_classes"
        yield "MODEL.SEM_SEG_HEAD.NUM_CLASSES", model.SEM_SEG_HEAD.NUM_CLASSES, kind


def _similar(name: str) -> str:
    close = difflib.get_close_matches(name, DatasetCatalog.list(), n=3)
    return f"did you mean {' or '.join(close)}?" if close else "register it before, or use cvplugins_voc_2007_trainval"
