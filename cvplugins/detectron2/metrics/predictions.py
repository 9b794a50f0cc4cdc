"""What a model predicted, to files or drawn into the images."""

from __future__ import annotations

import functools
import itertools
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import Tensor

from cvplugins.files import write_whole
from cvplugins.reporting import class_colours, draw_label_overlay

from .ground_truth import label_reader

if TYPE_CHECKING:
    from detectron2.utils.visualizer import VisImage

__all__ = ["DrawPredictions", "DumpPredictions", "WriteLabelMaps"]


class DumpPredictions(DatasetEvaluator):
    """Write boxes, scores and labels as mmdet's own dump has them: a pickled list, which ``tools/evaluate.py`` reads.

    In PASCAL VOC the last pixel is part of a box there, and not in Detectron2. Of COCO's datasets each image also has
    the ``category_ids`` of the labels, which Detectron2 sorts and mmdet leaves in the file's order.

    Args:
        dataset_name: A registered dataset.
        path: The file.
    """

    def __init__(self, dataset_name: str, path: str | os.PathLike[str]) -> None:
        self.last_pixel = 1.0 if MetadataCatalog.get(dataset_name).get("dirname") else 0.0
        number_of = MetadataCatalog.get(dataset_name).get("thing_dataset_id_to_contiguous_id")
        self.of_labels = {} if number_of is None else {"category_ids": sorted(number_of, key=number_of.get)}
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
            self.found.append({"img_id": given["image_id"], "pred_instances": predicted, **self.of_labels})

    def evaluate(self) -> None:
        """Write the predictions of all processes."""
        parts = comm.gather(self.found)
        if comm.is_main_process():
            with write_whole(self.path) as temporary:
                temporary.write_bytes(pickle.dumps(list(itertools.chain(*parts))))


class DrawPredictions(DatasetEvaluator):
    """Draw predictions into copies of the images; label maps beside the annotation, with a legend.

    Args:
        dataset_name: A registered dataset.
        folder: Where the copies go.
        score_threshold: Instances below are not drawn.
    """

    def __init__(self, dataset_name: str, folder: str | os.PathLike[str], score_threshold: float = 0.3) -> None:
        self.dataset_name = dataset_name
        self.metadata = MetadataCatalog.get(dataset_name)
        self.folder = Path(folder)
        self.score_threshold = score_threshold

    @functools.cached_property
    def read_label(self) -> Callable[[str], np.ndarray]:
        """What reads the annotations; made when the first one is drawn."""
        return label_reader(self.dataset_name)

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Draw some images."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for given, made in zip(inputs, outputs, strict=True):
            path = self.folder / Path(given["file_name"]).name
            if made.keys() == {"sem_seg"}:
                _write_png(path.with_suffix(".png"), self._overlay(given["file_name"], made["sem_seg"]))
            else:
                self._picture(given["file_name"], made).save(str(path.with_suffix(".jpg")))

    def _picture(self, file_name: str, made: Mapping[str, Any]) -> VisImage:
        from detectron2.utils.visualizer import Visualizer  # here, because it imports matplotlib

        picture = Visualizer(read_image(file_name, "RGB"), self.metadata)
        if "sem_seg" in made:
            picture.draw_sem_seg(made["sem_seg"].argmax(dim=0).to("cpu"))
        if "instances" in made:
            instances = made["instances"].to("cpu")
            picture.draw_instance_predictions(instances[instances.scores >= self.score_threshold])
        return picture.get_output()

    def _overlay(self, file_name: str, scores: Tensor) -> np.ndarray:
        classes = self.metadata.stuff_classes
        colours = self.metadata.get("stuff_colors") or class_colours(len(classes))
        prediction = scores.argmax(dim=0).cpu().numpy()
        image = read_image(file_name, "RGB")
        return draw_label_overlay(image, prediction, classes, colours, label=self.read_label(file_name))


class WriteLabelMaps(DatasetEvaluator):
    """Write label maps as PNG images of the images' own sizes, each process its own and each file whole or not at all.

    They have the labels of the dataset's files: where its metadata says ``reduce_zero_label`` classes count from 1.

    Args:
        dataset_name: A registered dataset of at most 255 classes.
        folder: Where they go.
    """

    def __init__(self, dataset_name: str, folder: str | os.PathLike[str]) -> None:
        self.first = int(MetadataCatalog.get(dataset_name).get("reduce_zero_label", False))
        self.folder = Path(folder)

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Write the label maps of some images."""
        for given, made in zip(inputs, outputs, strict=True):
            labels = made["sem_seg"].argmax(dim=0).cpu() + self.first
            _write_png(self.folder / f"{Path(given['file_name']).stem}.png", labels.to(torch.uint8).numpy())


def _write_png(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    with write_whole(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", optimize=pixels.ndim == 2)
