"""The proof for label maps: configs of mmseg."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.config import Config
from numpy.typing import NDArray

from cvplugins.datasets import read_label_image, without_zero_label
from cvplugins.datasets.proving import (
    Difference,
    Link,
    Proof,
    check_chain,
    check_counterparts,
    label_map_differences,
    stray_labels,
    unseen_labels,
)
from cvplugins.errors import UserError

from .counterparts import build_reader, image_name, read_as, spread
from .dataset_nodes import DatasetNode
from .perfect_predictions import PerfectPredictions
from .pipeline_trace import Trace, build_steps, same_draws, trace_labels

__all__ = ["LabelProof"]

Labels = NDArray[Any]


class LabelProof:
    """The proof of a config of mmseg.

    Args:
        cfg: The config.
        proof: What is found goes there.
        images: At most so many images of each dataset; all if None.
    """

    def __init__(self, cfg: Config, proof: Proof, images: int | None) -> None:
        self.cfg, self.proof, self.images = cfg, proof, images
        head = (cfg.get("model") or {}).get("decode_head") or {}
        head = head[-1] if isinstance(head, (list, tuple)) else head
        self.ignore_index = int(head.get("ignore_index", 255))  # mmseg's heads have 255 too
        self.names: Sequence[str] = ()
        self.train_names: Sequence[str] = ()

    def evaluate(self, job: str, pairs: Sequence[tuple[DatasetNode, DatasetNode]]) -> None:
        """Evaluate what training has of the images of the evaluation."""
        count, metrics = 0, None
        for tested, trained in pairs:
            val = build_reader(dict(tested.node), tested.key)
            if metrics is None:
                key = f"{job}_evaluator"
                metrics = PerfectPredictions(self.cfg[key], key, val.metainfo)
            count += self._evaluate(tested, trained, val, metrics)
        assert metrics is not None  # there is a pair
        self.proof.images = count
        metrics.judge(self.proof, count)

    def compare_training(self, trained: DatasetNode, tested: DatasetNode) -> None:
        """Compare the images of training with what evaluation would read of the same files."""
        own = build_reader(dict(trained.node), trained.key)
        other = build_reader({**read_as(self.cfg, trained, tested), "test_mode": True}, trained.key)
        self._compare_files(trained, tested, own, other, trained.key)

    def _evaluate(self, tested: DatasetNode, trained: DatasetNode, val: Any, metrics: PerfectPredictions) -> int:
        train = build_reader({**read_as(self.cfg, tested, trained), "test_mode": False}, trained.key)
        self.train_names, self.names = (each.metainfo.get("classes") or () for each in (train, val))
        for number, (first, second) in enumerate(zip(self.train_names, self.names, strict=False)):
            if first != second:
                text = f"label {number} is {first!r} in training, and {second!r} here"
                self.proof.add_everywhere(f"{tested.key}.metainfo", Difference("class order", text, 0))
        if len(self.train_names) != len(self.names):
            text = f"there are {len(self.train_names)} classes in training, and {len(self.names)} here"
            self.proof.add_everywhere(f"{tested.key}.metainfo", Difference("class order", text, 0))
        step = f"files of {tested.key}, read as {trained.key} reads them"
        learnt, evaluated = self._compare_files(trained, tested, train, val, step)
        for name, trace in evaluated.items():
            truth = trace.links[-1].found
            for metric in metrics.metrics:
                ignored = getattr(metric, "ignore_index", getattr(metric, "options", {}).get("ignore_index"))
                place = f"{metrics.key} ({type(metric).__name__}, ignore_index={ignored})"
                for difference in unseen_labels(truth, len(self.names), ignored, self.names):
                    self.proof.add(place, difference, name)
            height, width = trace.sample.ori_shape[:2]
            if truth.shape != (height, width):
                shape = f"{truth.shape[1]} x {truth.shape[0]}"
                text = f"the label map is {shape}, not the image's {width} x {height}; load annotations after resizing"
                self.proof.add(trace.links[-1].step, Difference("size", text, 1), name)
                continue
            prediction = self._prediction(learnt.get(name), truth)
            if prediction is not None:
                metrics.add_labels(trace.sample, prediction)
                self.proof.objects += 1
        return self.proof.objects

    def _compare_files(
        self, trained: DatasetNode, tested: DatasetNode, train: Any, val: Any, step: str
    ) -> tuple[dict[str, Labels], dict[str, Trace]]:
        """Take the same images through both pipelines; return what each has in the end."""
        steps, left_out = build_steps(_steps_of(trained), f"pipeline of {trained.key}", sizing=False)
        whole, _ = build_steps(_steps_of(trained), f"pipeline of {trained.key}")
        test_steps, _ = build_steps(_steps_of(tested), f"pipeline of {tested.key}")
        if left_out and f"left out of {trained.key}" not in " ".join(self.proof.notes):
            self.proof.notes.append(f"left out of {trained.key}: {', '.join(left_out)} (random)")
        places = {image_name(train.get_data_info(index)): index for index in range(len(train))}
        learnt: dict[str, Labels] = {}
        evaluated: dict[str, Trace] = {}
        for index in spread(len(val), self.images or len(val)):
            info = val.get_data_info(index)
            name = image_name(info)
            trace = self._trace(info, test_steps, index)
            if not trace.links:
                raise UserError(f"pipeline of {tested.key}: {name} has no label map at its end")
            evaluated[name] = trace
            self._check(name, [*_of_file(val, tested.key, info), *trace.links])
            if name not in places:
                self.proof.add(step, Difference("dropped", "training leaves the image out", 1), name)
                continue
            info = train.get_data_info(places[name])
            trace = self._trace(info, steps, index)
            if not trace.links:
                dropped = trace.dropped_by or f"pipeline of {trained.key}"
                self.proof.add(dropped, Difference("dropped", "the image is dropped", 1), name)
                continue
            learnt[name] = trace.links[-1].found
            self._check(name, [*_of_file(train, trained.key, info), *trace.links])
            for difference in unseen_labels(learnt[name], len(self.names), self.ignore_index, self.names):
                place = f"model.decode_head.ignore_index={self.ignore_index}"
                self.proof.add(place, difference, name)
            links = self._trace(train.get_data_info(places[name]), whole, index).links
            for before, after in itertools.pairwise(links):
                for difference in stray_labels(before.found, after.found, (self.ignore_index, 255)):
                    self.proof.add(after.step, difference, name)
        # In which of the two a difference arose, the chains say.
        found = {name: trace.links[-1].found for name, trace in evaluated.items()}
        rules = f"reduce_zero_label={train.reduce_zero_label} in training, {val.reduce_zero_label} in evaluation"
        check_counterparts(self.proof, f"{step} ({rules})", found, learnt, self._compare)
        return learnt, evaluated

    def _prediction(self, learnt: Labels | None, truth: Labels) -> Labels | None:
        """Return what a model that has learnt this predicts; where training ignores pixels, it does not know them."""
        if learnt is None or learnt.shape != truth.shape:
            return None
        count = len(self.names)
        unknown = (learnt == self.ignore_index) | (learnt >= count) | (learnt < 0)
        return np.where(unknown, (truth.astype(np.int64) + 1) % count, learnt)

    def _trace(self, info: dict[str, Any], steps: Sequence[tuple[str, Any]], seed: int) -> Trace:
        with same_draws(seed):
            return trace_labels(info, steps)

    def _check(self, name: str, chain: Sequence[Link]) -> None:
        check_chain(self.proof, name, chain, self._compare)

    def _compare(self, before: Labels, after: Labels) -> list[Difference]:
        return label_map_differences(before, after, self.ignore_index, self.names, self.train_names)


def _of_file(dataset: Any, key: str, info: dict[str, Any]) -> list[Link]:
    """Return the label map as the file has it; nothing where a dataset renumbers classes."""
    if info.get("label_map") is not None:
        return []
    labels = read_label_image(info["seg_map_path"])
    return [Link(key, without_zero_label(labels, 255) if dataset.reduce_zero_label else labels)]


def _steps_of(dataset: DatasetNode) -> list[Any]:
    return [step for pipeline in dataset.pipelines for step in pipeline]
