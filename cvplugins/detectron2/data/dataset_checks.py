"""What Detectron2's own loaders make of datasets: which label means what, and which objects reach training."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from cvplugins.datasets import (
    ClassCounts,
    VOCObject,
    box_problem,
    check_objects,
    check_same_classes,
    voc_edges,
)
from cvplugins.errors import DataError, UserError, first_line

__all__ = ["check_counts", "check_meanings", "count_records", "voc_box_problem"]

logger = logging.getLogger(__name__)

KINDS = ("thing_classes", "stuff_classes")


def check_meanings(names: Sequence[str]) -> None:
    """Raise ``DataError`` unless labels mean the same in every dataset; Detectron2 compares those of training alone.

    Args:
        names: Datasets whose metadata is known. Those without classes are passed over.
    """
    for kind in KINDS:
        known = [(name, MetadataCatalog.get(name).get(kind)) for name in names if name in DatasetCatalog]
        known = [(name, classes) for name, classes in known if classes]
        for name, classes in known[1:]:
            check_same_classes(known[0][1], f"{known[0][0]} ({kind})", classes, f"{name} ({kind})")


def count_records(name: str) -> ClassCounts | None:
    """Let a dataset's own function load it, as training will, and count its objects; None if it has none.

    Detectron2's mappers cut boxes to their image and leave out empty ones; that is warned of.

    Args:
        name: A registered dataset.

    Raises:
        UserError: It cannot be loaded, or an object's label is no class.
    """
    try:
        records = DatasetCatalog.get(name)
    except UserError:
        raise
    except Exception as error:  # the function may be anyone's
        raise _not_loaded(name, error) from error
    classes = MetadataCatalog.get(name).get("thing_classes")
    if not classes or not any("annotations" in each for each in records):
        return None
    counts, empty = ClassCounts(), []
    for record in records:
        for number, found in enumerate(record.get("annotations", ())):
            label = found["category_id"]
            place = f"dataset {name}: {record['file_name']}, object {number}"
            if not isinstance(label, int) or not 0 <= label < len(classes):
                raise DataError(f"{place}: category_id is {label!r}, but there are {len(classes)} classes")
            problem = _record_problem(found, record)
            if problem:
                empty.append(f"{place}, {classes[label]!r}: {problem}")
            counts.add(classes[label], usable=not problem and not found.get("iscrowd"))
    if empty:
        logger.warning("%s: Detectron2 leaves out %d objects; the first one: %s", name, len(empty), empty[0])
    return counts


def check_counts(cfg: CfgNode, counts: Mapping[str, ClassCounts]) -> None:
    """Look at the objects of all datasets.

    Args:
        cfg: Detectron2's config.
        counts: The objects of each dataset, by its name.

    Raises:
        DataError: A name is misspelt, or there is no object to learn from.
    """
    for name, found in counts.items():
        logger.info("%s: %s", name, found)
        if name not in cfg.DATASETS.TRAIN and not found.usable:
            kind = "objects but difficult or unusable ones" if found.unusable else "objects of its classes"
            logger.warning("DATASETS.TEST: %s has no %s: its scores will be NaN, and none can be the best", name, kind)
    for key, is_trained in (("DATASETS.TRAIN", True), ("DATASETS.TEST", False)):
        names = [name for name in counts if (name in cfg.DATASETS.TRAIN) == is_trained]
        if not names:
            continue
        classes, place = MetadataCatalog.get(names[0]).thing_classes, f"{key} ({', '.join(names)})"
        if warning := check_objects(classes, [counts[name] for name in names], place, is_trained):
            logger.warning(warning)


def voc_box_problem(found: VOCObject, width: int | None, height: int | None) -> str | None:
    """Return why Detectron2 would leave out an object of PASCAL VOC, whose boxes end behind their last pixel."""
    return box_problem(voc_edges(found.xmin, found.ymin, found.xmax, found.ymax), width, height)


def _record_problem(found: Mapping[str, Any], record: Mapping[str, Any]) -> str | None:
    if found["bbox_mode"] not in (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS):
        return None  # rotated boxes are not cut
    box = BoxMode.convert(list(map(float, found["bbox"])), found["bbox_mode"], BoxMode.XYXY_ABS)
    return box_problem(box, record.get("width"), record.get("height"))


def _not_loaded(name: str, error: Exception) -> UserError:
    metadata = MetadataCatalog.get(name)
    if isinstance(error, AssertionError) and "cannot be set to a different value" in str(error):
        return DataError(
            f"dataset {name}: the categories of {metadata.get('json_file')}, sorted by id, are others than "
            f"its metadata says: {' '.join(str(error).splitlines()[1:])}"
        )
    return UserError(f"dataset {name} cannot be loaded: {type(error).__name__}: {first_line(error)}")
