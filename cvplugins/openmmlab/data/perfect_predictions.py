"""A perfect prediction, handed to the evaluator of a config as a model would hand it over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import METRICS
from mmengine.structures import InstanceData, PixelData
from numpy.typing import NDArray

from cvplugins.datasets.proving import Difference, Objects, Proof, numbers_below_perfect
from cvplugins.errors import UserError, first_line

from .pipeline_trace import to_input

__all__ = ["FileTruths", "PerfectPredictions", "predicted_boxes"]

MOST_DETECTIONS = 100  # an image that COCO's rules count


def predicted_boxes(objects: Objects, matrix: NDArray[np.float64], scale: Sequence[float]) -> NDArray[np.float64]:
    """Return boxes as a head of mmdet would give them: from the network's input back by the scale factor alone.

    Args:
        objects: In the pixels of the file.
        matrix: What the test pipeline does to the image.
        scale: The ``scale_factor`` that it hands on, of width and height.
    """
    return to_input(objects.boxes, matrix) / np.array([*scale[:2], *scale[:2]], np.float64)


class PerfectPredictions:
    """The metrics of an evaluator, fed with perfect predictions.

    Args:
        entries: ``val_evaluator`` or ``test_evaluator`` of the config.
        key: Which of the two.
        meta: ``metainfo`` of the dataset that is evaluated.

    Raises:
        UserError: A metric cannot be built.
    """

    def __init__(self, entries: Any, key: str, meta: dict[str, Any]) -> None:
        self.key, self.metrics = key, []
        for entry in entries if isinstance(entries, (list, tuple)) else [entries]:
            if str(entry["type"]).rpartition(".")[2].startswith("Dump"):
                continue
            try:
                metric = METRICS.build(dict(entry))
            except Exception as error:
                raise UserError(f"{key} ({entry['type']}): {first_line(error)}") from error
            if hasattr(metric, "classwise"):
                metric.classwise = True
            metric.dataset_meta = meta
            self.metrics.append(metric)
        if not self.metrics:
            raise UserError(f"{key}: no metric that evaluates")

    def add_boxes(self, sample: Any, objects: Objects, boxes: NDArray[np.float64]) -> None:
        """Hand over an image of mmdet: objects that are not ignored, each with score 1."""
        kept = ~objects.ignored
        found = InstanceData(
            bboxes=torch.from_numpy(boxes[kept]).float(),
            labels=torch.from_numpy(objects.labels[kept]),
            scores=torch.ones(int(kept.sum())),
        )
        if objects.masks is not None:
            height, width = sample.ori_shape[:2]
            masks = [mask for mask, flag in zip(objects.masks, kept, strict=True) if flag]
            found.masks = torch.from_numpy(np.array(masks, bool).reshape(-1, height, width))
        self._process(sample, pred_instances=found)

    def add_labels(self, sample: Any, labels: NDArray[Any]) -> None:
        """Hand over an image of mmseg."""
        self._process(sample, pred_sem_seg=PixelData(data=torch.from_numpy(labels.astype(np.int64))[None]))

    def judge(self, proof: Proof, images: int) -> None:
        """Evaluate, and note what is below 1.

        Raises:
            UserError: A metric fails.
        """
        if not images:
            return  # every one has been named
        for metric in self.metrics:
            kind = type(metric).__name__
            try:
                numbers = Evaluator([metric]).evaluate(images)
            except Exception as error:
                text = f"the evaluation fails: {type(error).__name__}: {first_line(error)}"
                if not proof.losses:
                    raise UserError(f"{self.key} ({kind}): {text}") from error
                proof.add_everywhere(f"{self.key} ({kind})", Difference("fails", text, 0))  # what was named causes it
                continue
            of_mmseg = type(metric).__module__.startswith("mmseg.")
            full = 100.0 if of_mmseg else 1.0  # mmseg's give per cent
            below, judged = numbers_below_perfect({name: float(value) for name, value in numbers.items()}, full)
            proof.below |= below
            proof.judged += judged

    def _process(self, sample: Any, **predictions: Any) -> None:
        whole = sample.clone()
        for name, value in predictions.items():
            whole.set_data({name: value})
        for metric in self.metrics:
            try:
                Evaluator([metric]).process([whole], {})
            except Exception as error:
                name = sample.get("img_path") or sample.get("img_id")
                text = f"{type(error).__name__}: {first_line(error)}"
                raise UserError(f"{self.key} ({type(metric).__name__}) fails on {name}: {text}") from error


class FileTruths:
    """The boxes in the annotation file of a metric, by the ids of the images.

    Args:
        path: A file in COCO's form.
        classes: The names of the dataset, which mmdet looks for in the file's order.
    """

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        content = json.loads(path.read_text())
        numbers = [each["id"] for each in content["categories"] if each["name"] in classes]
        self.names = [each["name"] for each in content["categories"] if each["name"] in classes]
        self.found: dict[Any, list[tuple[list[float], int, bool]]] = {each["id"]: [] for each in content["images"]}
        for each in content["annotations"]:
            if each["category_id"] in numbers and each["image_id"] in self.found:
                left, top, width, height = each["bbox"]
                box = [left, top, left + width, top + height]
                label = numbers.index(each["category_id"])
                self.found[each["image_id"]].append((box, label, bool(each.get("iscrowd", 0))))

    def objects(self, image: Any) -> Objects | None:
        """Return the objects of an image; None if the file has no such image."""
        if image not in self.found:
            return None
        found = self.found[image]
        return Objects(
            np.array([box for box, _, _ in found], np.float64).reshape(-1, 4),
            np.array([label for _, label, _ in found], np.int64),
            np.array([crowd for _, _, crowd in found], bool),
        )
