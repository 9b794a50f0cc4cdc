"""PASCAL VOC in Detectron2's catalog, read by the core."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from cvplugins.datasets import (
    VOC_CLASSES,
    VOCSource,
    check_voc_source,
    read_annotation,
    read_image_list,
    voc_edges,
)
from cvplugins.datasets.image_readers import ImageReader

from .image_checks import image_reader, loaded_size

__all__ = ["PREFIX", "devkit_of", "register_voc", "voc_classes", "voc_records", "voc_source"]

logger = logging.getLogger(__name__)

PREFIX = "cvplugins_voc_"  # Detectron2 has voc_2007_trainval itself, and reads it from $DETECTRON2_DATASETS alone


SPLITS = [(year, split) for year in (2007, 2012) for split in ("train", "val", "trainval", "test")]


def register_voc(cfg: CfgNode) -> None:
    """Put ``cvplugins_voc_2007_trainval`` and the others into the catalog, as ``cfg.CVPLUGINS.DATA`` says.

    Those of an earlier call are replaced. Nothing is read before a dataset is asked for.

    Args:
        cfg: A config that :func:`add_cvplugins_config` was called with.

    Example::

        register_voc(cfg)
        DatasetCatalog.get("cvplugins_voc_2007_trainval")[0]["file_name"]
    """
    devkit, classes = devkit_of(cfg), voc_classes(cfg)
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
    source = voc_source(devkit, year, split)
    ids = read_image_list(source.image_list, source.annotations).ids
    if skip_broken:
        broken = dict(check_voc_source(source, classes=classes, skip_broken=True, reader=reader)[1])
        for image_id, reason in broken.items():
            logger.warning("left out of %s %s: %s (%s)", year, split, image_id, reason)
        ids = tuple(image_id for image_id in ids if image_id not in broken)
    return [_record(source, image_id, classes) for image_id in ids]


def devkit_of(cfg: CfgNode) -> Path:
    """Return the folder ``VOCdevkit`` of a config."""
    return Path(cfg.CVPLUGINS.DATA.ROOT or os.environ.get("DETECTRON2_DATASETS") or "data/VOCdevkit")


def voc_classes(cfg: CfgNode) -> tuple[str, ...]:
    """Return the classes that a config names, those of PASCAL VOC if it names none."""
    return tuple(cfg.CVPLUGINS.DATA.CLASSES) or VOC_CLASSES


def voc_source(devkit: Path, year: str, split: str) -> VOCSource:
    """Return where the images and annotations of a split lie."""
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
