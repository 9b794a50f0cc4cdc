"""Random batches for the models of mmdet's and mmseg's zoos: heads differ in what they take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.testing import demo_mm_inputs, demo_track_inputs
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

__all__ = ["Batch", "batches", "keep_sizes"]

SIZES = (128, 256)  # of the images; the second where a model has more queries than the first has pixels


class Batch(NamedTuple):
    """What a model trains on and what it predicts for, as its ``train_step`` and ``test_step`` take them."""

    train: dict[str, Any]
    test: dict[str, Any]


def keep_sizes(config: Config) -> None:
    """Let a model see images as they come: many configs pad them to 512 or 1024 pixels, or look through a window."""
    preprocessor = config.model.get("data_preprocessor") or {}
    for key in ("test_cfg", "batch_augments"):
        preprocessor.pop(key, None)
    if preprocessor.pop("size", None) is not None:
        preprocessor["size_divisor"] = 1  # mmseg wants one of the two
    if (config.model.get("test_cfg") or {}).get("mode") == "slide":
        config.model.test_cfg = {"mode": "whole"}


def batches(config: Config) -> Iterator[Batch]:
    """Yield batches of two images with different annotations, the richest first.

    Their sizes are small ones, then what a segmentation model was made for: some take no other.
    """
    classes = min(_found(config.model, "num_classes"), default=2)
    is_video = any(key in config.model for key in ("detector", "tracker", "track_head")) and (
        config.model.get("data_preprocessor", {}).get("type") == "TrackDataPreprocessor"
    )
    own = config.get("crop_size", ()) if config.get("default_scope") == "mmseg" else ()
    # SSD's anchors are those of one size.
    for size in _found(config.model, "input_size")[:1] or (*SIZES, *own[:1]):
        if config.get("default_scope") == "mmseg":
            yield _same(_segmentation_batch(classes, size))
            continue
        if is_video:
            yield _same(demo_track_inputs(1, 2, [0], (3, size, size), num_classes=1, with_mask=True))
        if "semi_train_cfg" in config.model:
            yield _semi_supervised(classes, size)
        for options in (
            {"with_mask": True, "with_semantic": True},
            {"with_mask": True, "with_semantic": True, "sem_seg_output_strides": 8},
            {},
        ):
            batch = _detection_batch(classes, size, **options)
            if config.model.type == "FastRCNN":
                _add_proposals(batch, size)
            yield _same(batch)
        # mmcv's masked convolution, which guided anchoring predicts with, takes one image.
        yield Batch(batch, {name: each[:1] for name, each in batch.items()})


def _same(batch: dict[str, Any]) -> Batch:
    return Batch(batch, batch)


def _detection_batch(classes: int, size: int, **options: Any) -> dict[str, Any]:
    images = [(3, size, size)] * 2
    # It draws label maps of 8 bits.
    batch = demo_mm_inputs(2, images, num_items=[3, 2], num_classes=min(max(classes, 2), 255), **options)
    for sample in batch["data_samples"]:
        sample.gt_instances.labels.clamp_(max=classes - 1)
    return batch


def _segmentation_batch(classes: int, size: int) -> dict[str, Any]:
    items = []
    shape = (size, size)
    for _ in range(2):
        sample = SegDataSample(metainfo={"img_shape": shape, "ori_shape": shape, "pad_shape": shape, "flip": False})
        sample.gt_sem_seg = PixelData(data=torch.randint(0, classes, (1, *shape)))
        sample.gt_edge_map = PixelData(data=torch.randint(0, 2, (1, *shape)))
        sample.gt_depth_map = PixelData(data=torch.rand(1, *shape))
        items.append({"inputs": torch.randint(0, 255, (3, *shape), dtype=torch.uint8), "data_samples": sample})
    return pseudo_collate(items)


def _found(node: Any, key: str) -> list[int]:
    if isinstance(node, dict):
        own = [node[key]] if isinstance(node.get(key), int) else []
        return own + [each for child in node.values() for each in _found(child, key)]
    return [each for child in node for each in _found(child, key)] if isinstance(node, (list, tuple)) else []


def _add_proposals(batch: dict[str, Any], size: int) -> None:
    """Give every image 20 boxes at random, which Fast R-CNN takes from a file."""
    for sample in batch["data_samples"]:
        corners = torch.rand(20, 2, 2) * size
        boxes = torch.cat([corners.amin(1), corners.amax(1) + 1], dim=1)
        sample.proposals = InstanceData(bboxes=boxes, scores=torch.rand(20))


def _semi_supervised(classes: int, size: int) -> Batch:
    """Return two images with labels and two without, the latter as teacher and student see them."""
    labelled, unlabelled = (_detection_batch(classes, size) for _ in range(2))
    for sample in (*labelled["data_samples"], *unlabelled["data_samples"]):
        sample.set_metainfo({"homography_matrix": np.eye(3, dtype=np.float32)})
    branches = {"sup": labelled, "unsup_teacher": unlabelled, "unsup_student": unlabelled}
    train = {part: {branch: batch[part] for branch, batch in branches.items()} for part in ("inputs", "data_samples")}
    return Batch(train, labelled)
