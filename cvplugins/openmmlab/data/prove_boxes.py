"""The proof for boxes and masks: configs of mmdet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from numpy.typing import NDArray

from cvplugins.datasets.proving import (
    Difference,
    Link,
    Objects,
    Proof,
    check_chain,
    check_counterparts,
    object_differences,
)
from cvplugins.errors import UserError

from .counterparts import build_reader, image_name, read_as, spread
from .dataset_nodes import DatasetNode
from .perfect_predictions import MOST_DETECTIONS, FileTruths, PerfectPredictions, predicted_boxes
from .pipeline_trace import Trace, build_steps, listed_objects, same_draws, trace_boxes

__all__ = ["BoxProof"]

PREDICTION = "inverse of the test pipeline (boxes are divided by scale_factor)"


class BoxProof:
    """The proof of a config of mmdet.

    Args:
        cfg: The config.
        proof: What is found goes there.
        images: At most so many images of each dataset; all if None.
    """

    def __init__(self, cfg: Config, proof: Proof, images: int | None) -> None:
        self.cfg, self.proof, self.images = cfg, proof, images
        self.names: Sequence[str] = ()
        self.train_names: Sequence[str] = ()
        self.size = (0, 0)

    def evaluate(self, job: str, pairs: Sequence[tuple[DatasetNode, DatasetNode]]) -> None:
        """Evaluate what training has of the images of the evaluation."""
        count, metrics = 0, None
        for tested, trained in pairs:
            val = build_reader(dict(tested.node), tested.key)
            if metrics is None:
                key = f"{job}_evaluator"
                metrics = PerfectPredictions(self.cfg[key], key, val.metainfo)
            count += self._evaluate(job, tested, trained, val, metrics)
        assert metrics is not None  # there is a pair
        self.proof.images = count
        metrics.judge(self.proof, count)

    def compare_training(self, trained: DatasetNode, tested: DatasetNode) -> None:
        """Compare the images of training with what evaluation would read of the same files."""
        own = build_reader(dict(trained.node), trained.key)
        other = build_reader({**read_as(self.cfg, trained, tested), "test_mode": True}, trained.key)
        self._name_classes(own, other)
        self._categories(trained, own)
        listed = self._readings(trained, own, other)
        steps, _ = build_steps(_steps_of(trained), f"pipeline of {trained.key}")
        for index in spread(len(own), self.images or len(own)):
            info = own.get_data_info(index)
            trace = self._trace(info, steps, index)
            if trace.dropped_by is None:
                self._check(image_name(info), [Link(trained.key, listed[image_name(info)]), *trace.links])
            else:
                self._dropped(trace.dropped_by, image_name(info), listed[image_name(info)])

    def _evaluate(
        self, job: str, tested: DatasetNode, trained: DatasetNode, val: Any, metrics: PerfectPredictions
    ) -> int:
        train = build_reader({**read_as(self.cfg, tested, trained), "test_mode": False}, trained.key)
        self._name_classes(train, val)
        self._categories(tested, val)
        if tuple(self.train_names) != tuple(self.names):
            texts = ("in training", "here")
            self._class_order(f"{tested.key}.metainfo", self.train_names, self.names, texts)
        self._readings(trained, train, val, f"files of {tested.key}, read as {trained.key} reads them")
        places = {image_name(train.get_data_info(index)): index for index in range(len(train))}
        pipeline = _steps_of(trained)
        with_masks = any(each.get("with_mask") for each in pipeline if isinstance(each, Mapping))
        steps, left_out = build_steps(pipeline, f"pipeline of {trained.key}", sizing=not with_masks)
        if left_out:
            self.proof.notes.append(f"left out of the pipeline of {trained.key}: {', '.join(left_out)} (random)")
        test_steps, _ = build_steps(_steps_of(tested), f"pipeline of {tested.key}")
        files = self._files(metrics)
        chosen = spread(len(val), self.images or len(val))
        ids = []
        for index in chosen:
            info = val.get_data_info(index)
            name = image_name(info)
            ids.append(info["img_id"])
            evaluated = self._trace(info, test_steps, index, way_back=False)
            if evaluated.sample is None:
                raise UserError(f"{evaluated.dropped_by} drops {name}; an evaluation cannot go on without an image")
            found = self._trained(train, places.get(name), steps, with_masks)
            scale = evaluated.sample.get("scale_factor", (1.0, 1.0))
            boxes = predicted_boxes(found, evaluated.to_input, scale)
            self._check_evaluated(tested, name, info, evaluated, files)
            self._check(name, [Link("", found), Link(PREDICTION, _moved(found, boxes))])
            metrics.add_boxes(evaluated.sample, found, boxes)
            ignored = int(listed_objects(info).ignored.sum())
            if ignored:
                text = "crowds and difficult objects count neither way"
                self.proof.add(tested.key, Difference("ignored", text, ignored, expected=True), name)
            kept = int((~found.ignored).sum())
            self.proof.objects += kept
            if kept > MOST_DETECTIONS:
                text = f"more than {MOST_DETECTIONS} objects, of which COCO's rules count {MOST_DETECTIONS}"
                self.proof.add(tested.key, Difference("many", text, kept - MOST_DETECTIONS, expected=True), name)
        for metric in metrics.metrics:
            if getattr(metric, "_coco_api", None) is not None and len(chosen) < len(val):
                metric.img_ids = ids
        return len(chosen)

    def _check_evaluated(
        self,
        tested: DatasetNode,
        name: str,
        info: Mapping[str, Any],
        evaluated: Trace,
        files: Sequence[tuple[str, FileTruths]],
    ) -> None:
        """Compare what the evaluation lists with what its pipeline, and its files, hand to the evaluator."""
        listed = listed_objects(info)
        height, width = evaluated.sample.ori_shape[:2]
        self.size = (width, height)
        if not files:
            self._check(name, [Link(tested.key, listed), *evaluated.links])
        for step, file in files:
            truths = file.objects(info["img_id"])
            if truths is None:
                text = "the file has no image of this id; it may be another split's"
                self.proof.add(step, Difference("image id", text, 1), f"{name} (id {info['img_id']})")
                continue
            for difference in object_differences(listed, truths, self.size, self.names, file.names):
                self.proof.add(step, difference, name)

    def _trained(self, train: Any, index: int | None, steps: Sequence[tuple[str, Any]], with_masks: bool) -> Objects:
        """Return the objects of an image as the loss gets them, in the pixels of the file."""
        if index is None:
            return _NOTHING
        info = train.get_data_info(index)
        name, listed = image_name(info), listed_objects(info)
        trace = self._trace(info, steps, index, masks=with_masks)
        if trace.dropped_by is not None:
            self._dropped(trace.dropped_by, name, listed)
            return _NOTHING
        self._check(name, [Link("", listed), *trace.links])
        return trace.links[-1].found

    def _trace(self, info: dict[str, Any], steps: Sequence[tuple[str, Any]], seed: int, **options: bool) -> Trace:
        with same_draws(seed):
            trace = trace_boxes(info, steps, **options)
        if trace.sample is not None and trace.sample.get("ori_shape") is not None:
            height, width = trace.sample.ori_shape[:2]
            self.size = (int(width), int(height))
        return trace

    def _check(self, name: str, chain: Sequence[Link]) -> None:
        check_chain(self.proof, name, chain, self._compare)

    def _compare(self, before: Objects, after: Objects) -> list[Difference]:
        return object_differences(before, after, self.size, self.names)

    def _dropped(self, step: str, name: str, listed: Objects) -> None:
        lost = int((~listed.ignored).sum())
        text = "the image is dropped, with its objects" if lost else "the image is dropped; it has no objects"
        self.proof.add(step, Difference("dropped", text, lost, expected=not lost), name)

    def _name_classes(self, train: Any, val: Any) -> None:
        self.train_names, self.names = (each.metainfo.get("classes") or () for each in (train, val))

    def _class_order(self, step: str, names: Sequence[str], others: Sequence[str], texts: tuple[str, str]) -> None:
        for number in range(max(len(names), len(others))):
            first, second = (repr(each[number]) if number < len(each) else "no class" for each in (names, others))
            if first != second:
                text = f"label {number} is {first} {texts[0]}, and {second} {texts[1]}"
                self.proof.add_everywhere(step, Difference("class order", text, 0))

    def _categories(self, dataset: DatasetNode, reader: Any) -> None:
        """Compare the names in a file of COCO's form with those of the dataset, which numbers by the file's order."""
        numbers, path = getattr(reader, "cat_ids", None), Path(str(getattr(reader, "ann_file", "")))
        if not isinstance(numbers, (list, tuple)) or path.suffix != ".json" or not path.is_file():
            return
        names = {each["id"]: each["name"] for each in json.loads(path.read_text())["categories"]}
        found = [names.get(number, "") for number in numbers]
        self._class_order(str(path), found, reader.metainfo.get("classes") or (), ("in its order", "in the classes"))

    def _readings(self, trained: DatasetNode, train: Any, val: Any, step: str | None = None) -> dict[str, Objects]:
        """Compare two readers of the same files, image by image; return what training lists."""
        sides = [
            {image_name(info): (info, listed_objects(info)) for info in map(each.get_data_info, range(len(each)))}
            for each in (train, val)
        ]
        rules = trained.node.get("filter_cfg")
        step = f"{step or trained.key}{f' (filter_cfg={dict(rules)})' if rules else ''}"
        for name, (_, listed) in sides[1].items():
            if name not in sides[0]:
                self._dropped(step, name, listed)
        self.size = (10**6, 10**6)  # readers cut nothing
        first, second = ({name: found for name, (_, found) in side.items()} for side in sides)
        # What evaluation lists comes first: a difference is what training makes of it.
        check_counterparts(
            self.proof,
            step,
            second,
            first,
            lambda a, b: object_differences(a, b, self.size, self.names, self.train_names),
        )
        return first

    def _files(self, metrics: PerfectPredictions) -> list[tuple[str, FileTruths]]:
        found = []
        entries = self.cfg[metrics.key]
        for entry in entries if isinstance(entries, (list, tuple)) else [entries]:
            if entry.get("ann_file"):
                step = f"{metrics.key}.ann_file ({entry['ann_file']})"
                file = FileTruths(Path(entry["ann_file"]), self.names)
                self._class_order(step, file.names, self.names, ("in its order", "in the classes"))
                found.append((step, file))
        return found


_NOTHING = Objects(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, bool))


def _steps_of(dataset: DatasetNode) -> list[Any]:
    return [step for pipeline in dataset.pipelines for step in pipeline]


def _moved(objects: Objects, boxes: NDArray[np.float64]) -> Objects:
    return Objects(boxes, objects.labels, objects.ignored)
