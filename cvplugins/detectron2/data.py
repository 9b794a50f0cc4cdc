"""PASCAL VOC in Detectron2's catalog, read by the core, and a check of all data before any work."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from cvplugins.datasets import (
    VOC_CLASSES,
    ClassCounts,
    VOCSource,
    check_class_names,
    check_coco_file,
    check_voc_folders,
    check_voc_source,
    read_annotation,
    read_coco_annotations,
    read_image_list,
    voc_edges,
)
from cvplugins.datasets.findings import Step, stop_at_first
from cvplugins.datasets.image_readers import ImageReader
from cvplugins.datasets.regular_files import stat_regular
from cvplugins.distributed import gather_objects
from cvplugins.errors import UserError
from cvplugins.samples.drawing import draw_missing

from .ade20k import check_scenes, register_ade20k
from .dataset_checks import check_counts, check_meanings, count_records, voc_box_problem
from .image_checks import check_records, image_reader, loaded_size
from .mask2former_project import is_mask2former

__all__ = ["PREFIX", "check_data", "examine_data", "register_datasets", "register_voc", "voc_records"]

logger = logging.getLogger(__name__)

PREFIX = "cvplugins_voc_"  # Detectron2 has voc_2007_trainval itself, and reads it from $DETECTRON2_DATASETS alone
SPLITS = [(year, split) for year in (2007, 2012) for split in ("train", "val", "trainval", "test")]


def register_datasets(cfg: CfgNode) -> None:
    """Put PASCAL VOC and ADE20K into the catalog; see :func:`register_voc` and :func:`register_ade20k`."""
    register_voc(cfg)
    register_ade20k(cfg)


def register_voc(cfg: CfgNode) -> None:
    """Put ``cvplugins_voc_2007_trainval`` and the others into the catalog, as ``cfg.CVPLUGINS.DATA`` says.

    Those of an earlier call are replaced. Nothing is read before a dataset is asked for.

    Args:
        cfg: A config that :func:`add_cvplugins_config` was called with.

    Example::

        register_voc(cfg)
        DatasetCatalog.get("cvplugins_voc_2007_trainval")[0]["file_name"]
    """
    devkit, classes = _devkit(cfg), _classes(cfg)
    for year, split in SPLITS:
        name = f"{PREFIX}{year}_{split}"
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        options = (devkit, f"VOC{year}", split, classes, cfg.CVPLUGINS.DATA.SKIP_BROKEN, image_reader(cfg, name))
        DatasetCatalog.register(name, lambda options=options: voc_records(*options))
        MetadataCatalog.get(name).set(
            thing_classes=list(classes),
            dirname=str(devkit / f"VOC{year}"),
            year=year,
            split=split,
            evaluator_type="pascal_voc",
        )


def voc_records(
    devkit: Path,
    year: str,
    split: str,
    classes: Sequence[str] = VOC_CLASSES,
    skip_broken: bool = False,
    reader: ImageReader | None = None,
) -> list[dict[str, Any]]:
    """Return the images of a split as Detectron2 has them; each object also says whether it is ``difficult``.

    Images may end in ``.jpg`` or ``.jpeg``, in small letters or capitals.

    The first pixel is 0, and the last one is not part of a box, as in detectron2/data/datasets/pascal_voc.py.

    Args:
        devkit: The folder ``VOCdevkit``.
        year: A folder of it, such as ``"VOC2007"``.
        split: A list's name, such as ``"trainval"``.
        classes: Names of the objects to read.
        skip_broken: Whether broken images and annotations are left out.
        reader: What will read the images; see :func:`check_voc`.

    Raises:
        DataError: The list or an annotation is missing or broken.
    """
    source = _source(devkit, year, split)
    ids = read_image_list(source.image_list, source.annotations).ids
    if skip_broken:
        broken = dict(check_voc_source(source, classes=classes, skip_broken=True, reader=reader)[1])
        for image_id, reason in broken.items():
            logger.warning("left out of %s %s: %s (%s)", year, split, image_id, reason)
        ids = tuple(image_id for image_id in ids if image_id not in broken)
    return [_record(source, image_id, classes) for image_id in ids]


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
    source = _source(_devkit(cfg), f"VOC{metadata.year}", metadata.split)
    check_voc_folders(source)
    split, _ = check_voc_source(
        source,
        classes=_classes(cfg),
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


def _devkit(cfg: CfgNode) -> Path:
    return Path(cfg.CVPLUGINS.DATA.ROOT or os.environ.get("DETECTRON2_DATASETS") or "data/VOCdevkit")


def _classes(cfg: CfgNode) -> tuple[str, ...]:
    return tuple(cfg.CVPLUGINS.DATA.CLASSES) or VOC_CLASSES


def _source(devkit: Path, year: str, split: str) -> VOCSource:
    source = VOCSource.of_devkit(devkit, year, split)
    return dataclasses.replace(source, suffixes=(".jpg", ".JPG", ".jpeg", ".JPEG"))


def _record(source: VOCSource, image_id: str, classes: Sequence[str]) -> dict[str, Any]:
    annotation = read_annotation(source.annotations / f"{image_id}.xml", classes)
    image = source.image(image_id)
    width, height = annotation.width, annotation.height
    if width is None or height is None:
        width, height = loaded_size(image)
    return {
        "file_name": str(image),
        "image_id": image_id,
        "height": height,
        "width": width,
        "annotations": [
            {
                "category_id": classes.index(each.name),
                "bbox": list(voc_edges(each.xmin, each.ymin, each.xmax, each.ymax)),
                "bbox_mode": BoxMode.XYXY_ABS,
                "difficult": each.difficult,
            }
            for each in annotation.objects
        ],
    }
