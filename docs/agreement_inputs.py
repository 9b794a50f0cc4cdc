"""The same ground truth and the same detections as each framework has them: the sample's test images, and noise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cvplugins.datasets import VOC_CLASSES
from cvplugins.evaluation.truths import read_truths

__all__ = [
    "Found",
    "coco_file",
    "coco_samples",
    "detectron2_dataset",
    "detectron2_outputs",
    "label_maps",
    "mmdet_samples",
    "noisy_detections",
]

VOC2007 = Path(__file__).parent.parent / "data" / "sample" / "VOCdevkit" / "VOC2007"
# In mmdet the last pixel of VOC's boxes is part of the box (xmax - 1), in Detectron2 the box ends behind it (xmax).
TO_DETECTRON2 = np.array([0, 0, 1, 1], np.float32)


@dataclass(frozen=True)
class Found:
    """The detections of an image.

    Attributes:
        boxes: ``xyxy`` in mmdet's coordinates, in eighths of a pixel, so that no sum is rounded.
        scores: Confidence.
        labels: Class indices.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


def noisy_detections() -> dict[str, Found]:
    """Return detections of each test image: near its objects, twice, mislabelled, beside them, and half an object."""
    generator = np.random.default_rng(0)
    return {
        image: _noisy(generator, truth["truth_boxes"], truth["truth_labels"])
        for image, truth in read_truths(VOC2007, split="test").images.items()
    }


def _noisy(generator: np.random.Generator, truths: NDArray[Any], labels: NDArray[Any]) -> Found:
    sizes = np.tile(truths[:, 2:] - truths[:, :2], 2)
    copies = generator.integers(0, 4, len(labels))
    near = np.repeat(truths + generator.normal(0, 0.08, truths.shape) * sizes, copies, axis=0)
    near += generator.normal(0, 1.5, near.shape)
    found = np.repeat(labels, copies)
    found = np.where(generator.random(len(found)) < 0.1, generator.integers(0, len(VOC_CLASSES), len(found)), found)
    # Half of the pixels of an object: an IoU of exactly 0.5.
    even = ((truths[:, 2] - truths[:, 0] + 1) % 2 == 0) & (generator.random(len(labels)) < 0.3)
    half = truths[even].astype(np.float64)
    half[:, 2] = (half[:, 0] + half[:, 2] - 1) / 2
    corner = generator.uniform(0, 120, (3, 2))
    noise = np.concatenate([corner, corner + generator.uniform(10, 60, (3, 2))], axis=1)
    boxes = np.concatenate([near, half, noise])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    labels = np.concatenate([found, labels[even], generator.integers(0, len(VOC_CLASSES), 3)])
    scores = generator.permutation(10_000)[: len(labels)] / 10_000
    return Found((np.round(boxes * 8) / 8).astype(np.float32), scores.astype(np.float32), labels.astype(np.int64))


def mmdet_samples(found: dict[str, Found]) -> list[dict[str, Any]]:
    """Return data samples as mmdet's evaluators get them, with the ground truth that its VOCDataset reads."""
    from mmdet.datasets import VOCDataset

    dataset = VOCDataset(
        data_root=str(VOC2007.parent),
        ann_file="VOC2007/ImageSets/Main/test.txt",
        data_prefix={"sub_data_root": "VOC2007/"},
        test_mode=True,
    )
    return [_mmdet_sample(dataset.get_data_info(index), found) for index in range(len(dataset))]


def _mmdet_sample(info: dict[str, Any], found: dict[str, Found]) -> dict[str, Any]:
    sample = {
        "img_id": info["img_id"],
        "img_path": info["img_path"],
        "pred_instances": _instances(vars(found[info["img_id"]])),
    }
    for name, ignored in (("gt_instances", 0), ("ignored_instances", 1)):
        objects = [each for each in info["instances"] if each["ignore_flag"] == ignored]
        boxes = np.array([each["bbox"] for each in objects], np.float32).reshape(-1, 4)
        labels = np.array([each["bbox_label"] for each in objects], np.int64)
        sample[name] = _instances({"boxes": boxes, "labels": labels})
    return sample


def coco_samples(found: dict[int, Found]) -> list[dict[str, Any]]:
    """Return data samples as mmdet's evaluators get them of a COCO file, whose boxes end behind the last pixel."""
    return [
        {
            "img_id": number,
            "ori_shape": (200, 200),
            "pred_instances": _instances(vars(replace(each, boxes=each.boxes + TO_DETECTRON2))),
        }
        for number, each in found.items()
    ]


def _instances(columns: dict[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
    """Name the columns as mmdet does."""
    return {name.replace("boxes", "bboxes"): torch.from_numpy(values) for name, values in columns.items()}


def detectron2_outputs(found: dict[Any, Found]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return inputs and outputs as Detectron2's evaluators get them."""
    from detectron2.structures import Boxes, Instances

    outputs = []
    for each in found.values():
        instances = Instances((200, 200))
        instances.pred_boxes = Boxes(torch.from_numpy(each.boxes + TO_DETECTRON2))
        instances.scores = torch.from_numpy(each.scores)
        instances.pred_classes = torch.from_numpy(each.labels)
        outputs.append({"instances": instances})
    return [{"image_id": image} for image in found], outputs


@contextmanager
def detectron2_dataset(name: str, year: int | None = None, json_file: Path | None = None) -> Iterator[str]:
    """Register the test images in Detectron2's catalog, by VOC's files or by a JSON file, until the block ends."""
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import register_coco_instances, register_pascal_voc

    if json_file is None:
        register_pascal_voc(name, str(VOC2007), "test", year, VOC_CLASSES)
    else:
        register_coco_instances(name, {}, str(json_file), str(VOC2007))
        DatasetCatalog.get(name)  # names the classes
    try:
        yield name
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def coco_file(path: Path) -> dict[str, int]:
    """Write the ground truth in COCO's format, difficult objects as crowds; return the number of each image."""
    truths = read_truths(VOC2007, split="test").images
    numbers = {image: number for number, image in enumerate(truths, start=1)}
    annotations = []
    for image, truth in truths.items():
        boxes = truth["truth_boxes"] + TO_DETECTRON2
        for box, label, difficult in zip(boxes.tolist(), truth["truth_labels"], truth["difficult"], strict=True):
            width, height = box[2] - box[0], box[3] - box[1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": numbers[image],
                    "category_id": int(label) + 1,
                    "bbox": [box[0], box[1], width, height],
                    "area": width * height,
                    "iscrowd": int(difficult),
                }
            )
    images = [
        {"id": number, "file_name": f"JPEGImages/{image}.jpg", "height": 200, "width": 200}
        for image, number in numbers.items()
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(VOC_CLASSES, start=1)]
    content = {"info": {}, "images": images, "categories": categories, "annotations": annotations}
    path.write_text(json.dumps(content), encoding="utf-8")
    return numbers


def label_maps() -> list[tuple[NDArray[np.uint8], NDArray[np.float64]]]:
    """Return true label maps of 8 classes with ignored pixels, and scores; class 7 is predicted but never true."""
    generator = np.random.default_rng(0)
    pairs = []
    for _ in range(6):
        label = np.kron(generator.integers(0, 7, (6, 8)), np.ones((5, 5))).astype(np.uint8)
        scores = generator.random((8, 30, 40))
        np.put_along_axis(scores, label[None].astype(np.int64), generator.uniform(0.5, 1.6, (1, 30, 40)), axis=0)
        label[:2] = 255
        pairs.append((label, scores))
    return pairs
