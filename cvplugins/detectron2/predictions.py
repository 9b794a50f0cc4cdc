"""What a model predicted, to a file or drawn into the images."""

from __future__ import annotations

import itertools
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.visualizer import Visualizer

from cvplugins.files import write_whole

__all__ = ["DrawPredictions", "DumpPredictions"]


class DumpPredictions(DatasetEvaluator):
    """Write boxes, scores and labels as mmdet's own dump has them: a pickled list, which ``tools/evaluate.py`` reads.

    In PASCAL VOC the last pixel is part of a box there, and not in Detectron2.

    Args:
        dataset_name: A registered dataset.
        path: The file.
    """

    def __init__(self, dataset_name: str, path: str | os.PathLike[str]) -> None:
        self.last_pixel = 1.0 if MetadataCatalog.get(dataset_name).get("dirname") else 0.0
        self.path = path
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self.found: list[dict[str, Any]] = []

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Keep the predictions of some images."""
        for given, made in zip(inputs, outputs, strict=True):
            instances = made["instances"].to("cpu")
            boxes = instances.pred_boxes.tensor - torch.tensor([0.0, 0.0, self.last_pixel, self.last_pixel])
            predicted = {"bboxes": boxes, "scores": instances.scores, "labels": instances.pred_classes}
            self.found.append({"img_id": given["image_id"], "pred_instances": predicted})

    def evaluate(self) -> None:
        """Write the predictions of all processes."""
        parts = comm.gather(self.found)
        if comm.is_main_process():
            with write_whole(self.path) as temporary:
                temporary.write_bytes(pickle.dumps(list(itertools.chain(*parts))))


class DrawPredictions(DatasetEvaluator):
    """Draw predictions into copies of the images.

    Args:
        dataset_name: A registered dataset.
        folder: Where the copies go.
        score_threshold: Instances below are not drawn.
    """

    def __init__(self, dataset_name: str, folder: str | os.PathLike[str], score_threshold: float = 0.3) -> None:
        self.metadata = MetadataCatalog.get(dataset_name)
        self.folder = Path(folder)
        self.score_threshold = score_threshold

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Draw some images."""
        for given, made in zip(inputs, outputs, strict=True):
            picture = Visualizer(read_image(given["file_name"], "RGB"), self.metadata)
            if "sem_seg" in made:
                picture.draw_sem_seg(made["sem_seg"].argmax(dim=0).to("cpu"))
            if "instances" in made:
                instances = made["instances"].to("cpu")
                picture.draw_instance_predictions(instances[instances.scores >= self.score_threshold])
            self.folder.mkdir(parents=True, exist_ok=True)
            picture.get_output().save(str(self.folder / f"{Path(given['file_name']).stem}.jpg"))
