"""ADE20K in Detectron2's catalog as it is downloaded; Detectron2's own needs a converted copy of the label maps."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from cvplugins.datasets import ADE20K_CLASSES, DataError, ade20k_pairs, check_label_images
from cvplugins.datasets.label_images import check_classes_occur

from .image_checks import scene_reader

__all__ = ["PREFIX", "ade20k_records", "check_scenes", "register_ade20k"]

logger = logging.getLogger(__name__)

PREFIX = "cvplugins_ade20k_"
SPLITS = {"train": "training", "val": "validation"}


def register_ade20k(cfg: CfgNode) -> None:
    """Put ``cvplugins_ade20k_train`` and ``cvplugins_ade20k_val`` into the catalog, as ``cfg.CVPLUGINS.DATA`` says.

    Their label maps hold 0 for unlabelled and 1 to 150 for the classes. The metadata says so (``reduce_zero_label``),
    and the training's mapper and our evaluator heed it: no ``annotations_detectron2`` is needed. Those of an earlier
    call are replaced. Nothing is read before a dataset is asked for.

    Args:
        cfg: A config that :func:`add_cvplugins_config` was called with.

    Example::

        register_ade20k(cfg)
        DatasetCatalog.get("cvplugins_ade20k_val")[0]["sem_seg_file_name"]
    """
    root = _root(cfg)
    for name, split in SPLITS.items():
        name = f"{PREFIX}{name}"
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        DatasetCatalog.register(name, lambda split=split: ade20k_records(root, split))
        MetadataCatalog.get(name).set(
            stuff_classes=list(cfg.CVPLUGINS.DATA.CLASSES or ADE20K_CLASSES),
            image_root=str(root / "images" / split),
            sem_seg_root=str(root / "annotations" / split),
            ignore_label=255,
            reduce_zero_label=True,
            evaluator_type="sem_seg",
        )


def ade20k_records(root: Path, split: str) -> list[dict[str, Any]]:
    """Return the images of a split as Detectron2 has them.

    Args:
        root: The folder ``ADEChallengeData2016``.
        split: ``"training"`` or ``"validation"``.

    Raises:
        DataError: A folder is missing or empty.
    """
    return [
        {"file_name": str(image), "image_id": image.stem, "sem_seg_file_name": str(label)}
        for image, label in ade20k_pairs(root, split)
    ]


def check_scenes(name: str, metadata: Any, cfg: CfgNode, full: bool = False) -> None:
    """Check the label maps of a dataset of the catalog: sizes, and labels out of range.

    Args:
        name: The dataset; nothing is checked if it has no label maps of classes.
        metadata: Its metadata.
        cfg: The config, which says how the label maps are read.
        full: Whether to decode every image.

    Raises:
        DataError: A folder or file is missing, or wrong.
    """
    classes = metadata.get("stuff_classes")
    if not classes or not metadata.get("sem_seg_root") or metadata.get("thing_classes"):
        return
    pairs: Sequence[tuple[Path, Path]]
    if name.startswith(PREFIX):
        pairs = ade20k_pairs(Path(metadata.image_root).parents[1], Path(metadata.image_root).name)
    else:
        pairs = _registered_pairs(name, metadata)
    reduced = metadata.get("reduce_zero_label", False)
    ignore_index = metadata.get("ignore_label", 255)
    report = check_label_images(
        pairs,
        len(classes),
        reduce_zero_label=reduced,
        ignore_index=ignore_index,
        reader=scene_reader(cfg, name, full),
    )
    values = {index + int(reduced): each for index, each in enumerate(classes)}
    try:
        occurrence = check_classes_occur(report, values)
    except DataError as error:
        raise DataError(f"dataset {name}: {error}") from error
    for warning in (*report.warnings, *occurrence):
        logger.warning("%s: %s", name, warning)
    logger.info("%s: %d images; label 0 is %.1f %% of the pixels", name, report.images, 100 * report.share(0))


def _registered_pairs(name: str, metadata: Any) -> Sequence[tuple[Path, Path]]:
    for folder in (metadata.image_root, metadata.sem_seg_root):
        if not Path(folder).is_dir():
            hint = f"; {PREFIX}train and {PREFIX}val read the download as it is" if "ade20k" in name else ""
            raise DataError(f"dataset {name}: {Path(folder).absolute()} does not exist{hint}")
    return [(Path(each["file_name"]), Path(each["sem_seg_file_name"])) for each in DatasetCatalog.get(name)]


def _root(cfg: CfgNode) -> Path:
    shared = os.environ.get("DETECTRON2_DATASETS")
    return Path(cfg.CVPLUGINS.DATA.ROOT or (shared and Path(shared, "ADEChallengeData2016")) or _DEFAULT)


_DEFAULT = "data/ADEChallengeData2016"
