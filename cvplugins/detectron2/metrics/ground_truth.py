"""The ground truth of a dataset in Detectron2's catalog, in Detectron2's coordinates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, PolygonMasks
from numpy.typing import NDArray

from cvplugins.datasets import (
    CocoAnnotations,
    read_annotation,
    read_coco_annotations,
    read_label_image,
    voc_edges,
    voc_truth,
    without_zero_label,
)

__all__ = ["dataset_truths", "label_reader"]


def dataset_truths(name: str) -> tuple[dict[Any, dict[str, Any]], CocoAnnotations | None]:
    """Return what is there in each image, and the annotation file if the dataset is COCO's.

    PASCAL VOC's datasets are read from their XML files, since Detectron2 drops which objects are difficult; COCO's
    from their JSON file, since it drops the areas.

    Args:
        name: A registered dataset.

    Returns:
        Of each image, by its ``image_id``: ``truth_boxes``, ``truth_labels`` and what else
        :class:`cvplugins.metrics.ImageDetections` takes.
    """
    metadata = MetadataCatalog.get(name)
    if hasattr(metadata, "json_file"):
        return _of_json(metadata)
    records = DatasetCatalog.get(name)  # also sets the metadata of some datasets
    if hasattr(metadata, "json_file"):
        return _of_json(metadata)
    if hasattr(metadata, "dirname") and hasattr(metadata, "year"):
        folder = Path(metadata.dirname) / "Annotations"
        classes = tuple(metadata.thing_classes)
        annotations = {
            each["image_id"]: read_annotation(folder / f"{each['image_id']}.xml", classes) for each in records
        }
        return {image: voc_truth(annotation, classes, voc_edges) for image, annotation in annotations.items()}, None
    return {each["image_id"]: _of_record(each) for each in records}, None


def label_reader(name: str) -> Callable[[str], NDArray[Any]]:
    """Return a function that reads the label map of an image, by its ``file_name``, with the classes from 0.

    Args:
        name: A registered dataset whose records have ``sem_seg_file_name``. If its metadata says ``reduce_zero_label``,
            0 in the files is no class and 1 the first one.
    """
    records = DatasetCatalog.get(name)
    files = {each["file_name"]: each["sem_seg_file_name"] for each in records if "sem_seg_file_name" in each}
    metadata = MetadataCatalog.get(name)

    def _read(file_name: str) -> NDArray[Any]:
        label = read_label_image(files[file_name])
        if metadata.get("reduce_zero_label", False):
            return without_zero_label(label, metadata.get("ignore_label", 255))
        return label

    return _read


def _of_json(metadata: Any) -> tuple[dict[Any, dict[str, Any]], CocoAnnotations]:
    number_of = getattr(metadata, "thing_dataset_id_to_contiguous_id", None)
    if number_of is not None:  # by sorted ids, whatever the order in the file is
        annotations = read_coco_annotations(metadata.json_file, category_ids=sorted(number_of, key=number_of.get))
    else:
        annotations = read_coco_annotations(metadata.json_file, getattr(metadata, "thing_classes", None))
    truths = {image: found.as_truth() for image, found in annotations.images.items()}
    return truths, annotations


def _of_record(record: dict[str, Any]) -> dict[str, Any]:
    found = record["annotations"]
    # COCOEvaluator takes such a dataset through convert_to_coco_dict, which rounds.
    xywh = [BoxMode.convert(list(each["bbox"]), each["bbox_mode"], BoxMode.XYWH_ABS) for each in found]
    boxes = np.array([[round(float(side), 3) for side in box] for box in xywh], np.float64).reshape(-1, 4)
    areas = [_area(each, box) for each, box in zip(found, xywh, strict=True)]
    return {
        "truth_boxes": np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
        "truth_sizes": boxes[:, 2:],
        "truth_areas": np.array(areas, np.float64),
        "truth_labels": np.array([each["category_id"] for each in found], np.int64),
        "crowd": np.array([bool(each.get("iscrowd", 0)) for each in found], bool),
    }


def _area(annotation: dict[str, Any], xywh: list[float]) -> float:
    """Return the area of an object's outline, or of its box, as ``convert_to_coco_dict`` measures it."""
    outline = annotation.get("segmentation")
    if isinstance(outline, list):
        return float(PolygonMasks([outline]).area()[0])
    if isinstance(outline, dict):
        from pycocotools import mask as coding

        return float(coding.area(outline))
    return float(Boxes([BoxMode.convert(xywh, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)]).area()[0])
