"""Feed a config's own ground truth, as training has it, to its evaluator: what ``cvplugins data prove`` calls."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, BoxMode, Instances
from fvcore.transforms.transform import TransformList

from cvplugins.datasets.proving import (
    Difference,
    Link,
    Objects,
    Proof,
    check_chain,
    numbers_below_perfect,
    object_differences,
)
from cvplugins.detectron2.run.config import load_config
from cvplugins.detectron2.run.trainer import CvpluginsTrainer
from cvplugins.errors import UserError
from cvplugins.samples.drawing import draw_missing

from .catalog import register_datasets
from .loading import training_records
from .mappers import build_mapper

__all__ = ["prove"]


class _Recorded(T.AugmentationList):
    """Augmentations that remember what they did."""

    done: TransformList

    def __call__(self, aug_input: Any) -> TransformList:
        self.done = super().__call__(aug_input)
        return self.done


def prove(
    config: str | os.PathLike[str], cfg_options: Mapping[str, Any] | None = None, images: int | None = None
) -> Proof:
    """Return what a perfect prediction gets, and at which step it is lost; of boxes.

    Args:
        config: Config file.
        cfg_options: Changes to it.
        images: At most so many of each data set, evenly over all; all if None.

    Raises:
        UserError: Something is wrong that keeps data or evaluator from working at all, or the config has no boxes.
    """
    cfg = load_config(config, cfg_options)
    register_datasets(cfg)
    if cfg.CVPLUGINS.DATA.ROOT:
        draw_missing(cfg.CVPLUGINS.DATA.ROOT)
    for name in cfg.DATASETS.TEST:
        records = DatasetCatalog.get(name)
        if not records or "annotations" not in records[0] or cfg.MODEL.MASK_ON:
            raise UserError(f"DATASETS.TEST: {name}: for Detectron2 the proof is of boxes only, without masks")
    proof = Proof()
    with tempfile.TemporaryDirectory() as folder:
        cfg.defrost()
        cfg.OUTPUT_DIR = folder
        for name in cfg.DATASETS.TEST:
            _prove_set(cfg, name, proof, images)
    return proof


def _prove_set(cfg: CfgNode, name: str, proof: Proof, images: int | None) -> None:
    records = DatasetCatalog.get(name)
    classes = list(MetadataCatalog.get(name).thing_classes)
    DatasetCatalog.get(cfg.DATASETS.TRAIN[0])  # sets the metadata
    learnt = list(MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).thing_classes)
    for number in range(max(len(learnt), len(classes))):
        first, second = (repr(each[number]) if number < len(each) else "no class" for each in (learnt, classes))
        if first != second:
            text = f"label {number} is {first} in {cfg.DATASETS.TRAIN[0]}, and {second} here"
            proof.add_everywhere(f"thing_classes of {name}", Difference("class order", text, 0))
    trial = cfg.clone()
    trial.DATASETS.TRAIN = (name,)
    kept = {each["image_id"]: each for each in training_records(trial)}
    mapper: Any = build_mapper(cfg, cfg.DATASETS.TRAIN)
    mapper.augmentations = _Recorded(mapper.augmentations.augs)
    test_mapper = DatasetMapper(cfg, is_train=False)
    # Every image, so that an evaluator of a whole file has all; --images is for the comparison of long sets alone.
    step = max(1, len(records) // images) if images else 1
    evaluator = CvpluginsTrainer.build_evaluator(cfg, name)
    evaluator.reset()
    for index, record in enumerate(records):
        truth = _listed(record)
        found = truth
        if index % step == 0:
            found = _learnt(record, kept.get(record["image_id"]), mapper, proof, classes)
        given = test_mapper(record)
        evaluator.process([given], [{"instances": _predicted(found, given, record, proof, classes)}])
        proof.images += 1
        proof.objects += int((~found.ignored).sum())
    for each in evaluator._evaluators:
        numbers = {
            f"{task}/{key}": float(value)
            for task, values in (each.evaluate() or {}).items()
            for key, value in values.items()
        }
        full = 1.0 if type(each).__module__.startswith("cvplugins.") else 100.0  # Detectron2's give per cent
        below, judged = numbers_below_perfect(numbers, full)
        proof.below |= below
        proof.judged += judged


def _learnt(
    record: dict[str, Any], kept: dict[str, Any] | None, mapper: Any, proof: Proof, classes: list[str]
) -> Objects:
    """Return the objects of an image as the loss gets them, in the pixels of the file."""
    listed, name = _listed(record), record["file_name"]
    if kept is None:
        lost = int((~listed.ignored).sum())
        proof.add("training_records", Difference("dropped", "the image is left out", lost, expected=not lost), name)
        return _NOTHING
    mapped = mapper(kept)
    instances = mapped["instances"]
    boxes = instances.gt_boxes.tensor.numpy().astype(np.float64)
    back = mapper.augmentations.done.inverse()
    boxes = back.apply_box(boxes) if len(boxes) else boxes
    labels = instances.gt_classes.numpy()
    found = Objects(boxes.reshape(-1, 4), labels, np.zeros(len(labels), bool))
    size = (mapped["width"], mapped["height"])
    chain = [
        Link("", listed),
        Link("records of training (CVPLUGINS.DATA)", _listed(kept)),
        Link(f"mapper of training ({type(mapper).__name__})", found),
    ]
    check_chain(proof, name, chain, lambda a, b: object_differences(a, b, size, classes))
    return found


def _predicted(
    found: Objects, given: dict[str, Any], record: dict[str, Any], proof: Proof, classes: list[str]
) -> Instances:
    """Return what a model gives: from the network's input back to the size that the record says."""
    height, width = given["image"].shape[-2:]
    full_height, full_width = given.get("height", height), given.get("width", width)
    kept = ~found.ignored
    scale = np.array([width / full_width, height / full_height] * 2)
    result = Instances((height, width))
    result.pred_boxes = Boxes(torch.from_numpy(found.boxes[kept] * scale).float())
    result.scores = torch.ones(int(kept.sum()))
    result.pred_classes = torch.from_numpy(found.labels[kept])
    return detector_postprocess(result, full_height, full_width)


def _listed(record: dict[str, Any]) -> Objects:
    found = record["annotations"]
    boxes = [BoxMode.convert(list(each["bbox"]), each["bbox_mode"], BoxMode.XYXY_ABS) for each in found]
    return Objects(
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array([each["category_id"] for each in found], np.int64),
        np.array([bool(each.get("iscrowd", 0)) for each in found], bool),
    )


_NOTHING = Objects(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, bool))
