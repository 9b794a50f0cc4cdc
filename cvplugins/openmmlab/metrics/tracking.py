"""Tracking metric: mmdet's data samples of videos to arrays, once; log, JSON and figure from the core's result."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce

from cvplugins import metrics
from cvplugins.metrics import TrackedFrame
from cvplugins.registry import METRICS

from .base import PluginMetric, as_array

__all__ = ["TrackingMetric"]


@METRICS.register_module()
class TrackingMetric(PluginMetric):
    """CLEAR MOT, identity and HOTA; see :class:`cvplugins.metrics.TrackingMetric`.

    Takes the place of mmdet's ``MOTChallengeMetric``, needs no TrackEval, takes several classes and any video dataset,
    frame by frame or as whole videos, in any order and on any rank. Ground truth is the dataset's ``instances`` (image
    coordinates, whatever the pipeline resized), or else ``gt_instances`` and ``ignored_instances``. Crowds
    (``ignore_flag``) and the classes in ``distractors`` absorb what is tracked on them; true boxes with ``mot_conf`` 0
    do not count.

    Videos are told apart by the folder of their images. Logs ``track/HOTA``, ``track/MOTA``, ``track/IDF1`` and so on,
    per class as ``track/HOTA/<class>``, and a table; writes ``track_results.json`` and ``track_figure`` as PNG and SVG.
    FPS is there if the samples have the metainfo ``seconds``.

    Args:
        classes: Names of the classes to evaluate; all of the dataset's if None. Boxes of others are left out.
        distractors: Names of the dataset's classes whose true boxes absorb what is tracked on them.
        iou_threshold: Smallest IoU that matches in CLEAR MOT and identity.
        out_dir, collect_device, prefix: See :class:`PluginMetric`.

    Raises:
        ValueError: An option is none of what is accepted.
    """

    default_prefix = "track"

    def __init__(
        self,
        classes: Sequence[str] | None = None,
        distractors: Sequence[str] = (),
        iou_threshold: float = 0.5,
        out_dir: str | os.PathLike | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(out_dir=out_dir, collect_device=collect_device, prefix=prefix)
        both = sorted(set(classes or ()) & set(distractors))
        if both:
            raise ValueError(f"class {both[0]} is in classes and in distractors; it can only be one of them")
        self.classes = classes
        self.distractors = tuple(distractors)
        self.iou_threshold = iou_threshold
        # The dataset's classes are not known yet, but a wrong option should stop the run before it begins.
        metrics.TrackingMetric(classes or ["any"], iou_threshold)

    def names(self) -> list[str]:
        """See :class:`PluginMetric`."""
        return list(self._core().compute().numbers())

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Append the state of each frame, whether a sample is one frame or a whole video."""
        known = self._dataset_classes()
        for sample in data_samples:
            for frame in sample["video_data_samples"]:
                self.results.append(
                    self._tracked_frame(frame if isinstance(frame, Mapping) else frame.to_dict(), known)
                )

    def evaluate(self, size: int) -> dict[str, float]:
        """Return the metrics of the whole data set, on every rank.

        Args:
            size: Length of the data set, which counts videos and not frames, and so says nothing here.
        """
        frames = torch.tensor(len(self.results))
        all_reduce(frames)
        return super().evaluate(int(frames))

    def compute_metrics(self, results: list[TrackedFrame]) -> dict[str, float]:
        """Compute, log and write the metrics of all frames."""
        core = self._core()
        # What a sampler padded may differ in the last bits on another device: the first one counts.
        unique = {(frame.sequence, frame.frame): frame for frame in reversed(results)}.values()
        names = _short_names({str(frame.sequence) for frame in unique})
        for frame in unique:
            core.update(replace(frame, sequence=names[str(frame.sequence)]))
        result = core.compute()
        settings = {
            "iou_threshold": self.iou_threshold,
            "classes": list(core.classes),
            "distractors": list(self.distractors),
        }
        self.report(result, settings)
        return result.scalars()

    def _core(self) -> metrics.TrackingMetric:
        return metrics.TrackingMetric(self._classes(), self.iou_threshold)

    def _dataset_classes(self) -> Sequence[str]:
        known = (self.dataset_meta or {}).get("classes") or self.classes
        if not known:
            raise ValueError("the dataset names no classes; give TrackingMetric(classes=[...]), or its metainfo")
        missing = [name for name in (*(self.classes or ()), *self.distractors) if name not in known]
        if missing:
            raise ValueError(f"the dataset has no class {missing[0]!r}; it has: {', '.join(known)}")
        return known

    def _classes(self) -> Sequence[str]:
        return self.classes or [name for name in self._dataset_classes() if name not in self.distractors]

    def _tracked_frame(self, sample: Mapping[str, Any], known: Sequence[str]) -> TrackedFrame:
        path = sample.get("img_path")
        sequence = str(PurePath(path).parent) if path else f"video {sample.get('video_id', 0)}"
        if "frame_id" not in sample or "pred_track_instances" not in sample:
            lacking = "frame_id" if "frame_id" not in sample else "pred_track_instances"
            raise ValueError(f"{path or sequence}: the data sample has no {lacking}; it has: {', '.join(sample)}")
        found = sample["pred_track_instances"]
        truth = _truth(sample)
        # The evaluated class of each of the dataset's; -1 for others.
        index = {name: place for place, name in enumerate(self._classes())}
        evaluated = np.array([index.get(name, -1) for name in known])
        label = evaluated[_labels(found["labels"], known, path or sequence)]
        category = _labels(truth["label"], known, path or sequence)
        truth |= {"label": evaluated[category], "distractor": np.isin(category, _places(known, self.distractors))}
        kept = label >= 0
        rows = _rows_per_class(truth, len(index)) if self.distractors else _evaluated(truth)
        return TrackedFrame(
            sequence,
            int(sample["frame_id"]),
            ids=as_array(found["instances_id"])[kept],
            boxes=as_array(found["bboxes"]).reshape(-1, 4)[kept],
            labels=label[kept],
            truth_ids=rows["id"],
            truth_boxes=rows["box"],
            truth_labels=rows["label"],
            ignored=rows["ignored"],
            excluded=rows["excluded"],
            seconds=sample.get("seconds"),
        )


def _truth(sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the columns of the ground truth: id, box, label, ignored and excluded."""
    if "instances" in sample:
        listed = sample["instances"]
        return {
            "id": np.array([each["instance_id"] for each in listed], np.int64),
            "box": np.array([each["bbox"] for each in listed], np.float64).reshape(-1, 4),
            "label": np.array([each["bbox_label"] for each in listed], np.int64),
            "ignored": np.array([each.get("ignore_flag", 0) for each in listed], bool),
            "excluded": np.array([each.get("mot_conf", 1) == 0 for each in listed], bool),
        }
    regular, crowds = (sample.get(name) or {} for name in ("gt_instances", "ignored_instances"))
    parts = [part for part in (regular, crowds) if "instances_ids" in part]
    ignored = np.repeat([part is crowds for part in parts], [len(part["instances_ids"]) for part in parts])
    return {
        "id": np.concatenate([np.zeros(0, np.int64), *(as_array(part["instances_ids"]) for part in parts)]),
        "box": np.concatenate([np.zeros((0, 4), np.float32), *(as_array(part["bboxes"]) for part in parts)]),
        "label": np.concatenate([np.zeros(0, np.int64), *(as_array(part["labels"]) for part in parts)]),
        "ignored": ignored.astype(bool),
        "excluded": np.zeros(len(ignored), bool),
    }


def _evaluated(truth: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: column[truth["label"] >= 0] for name, column in truth.items()}


def _rows_per_class(truth: dict[str, np.ndarray], num_classes: int) -> dict[str, np.ndarray]:
    """Let distractors absorb boxes of every class, and all others compete with them, as MOTChallenge does."""
    count = len(truth["id"])
    rows = {name: np.concatenate([column] * num_classes) for name, column in truth.items()}
    label = np.repeat(np.arange(num_classes), count)
    rows["excluded"] |= (rows["label"] != label) & ~rows["distractor"]
    rows["ignored"] |= rows["distractor"]
    return {**rows, "label": label}


def _labels(values: Any, known: Sequence[str], where: str) -> np.ndarray:
    labels = as_array(values).astype(np.int64).reshape(-1)
    wrong = labels[(labels < 0) | (labels >= len(known))]
    if len(wrong):
        raise ValueError(f"{where}: label {wrong[0]} is no class; there are {len(known)}, from 0")
    return labels


def _places(known: Sequence[str], names: Iterable[str]) -> list[int]:
    return [list(known).index(name) for name in names]


def _short_names(folders: set[str]) -> dict[str, str]:
    """Name videos by their folders without what all have in common: a leading path, and a last ``img1``.

    >>> _short_names({"data/train/A/img1", "data/train/B/img1"})["data/train/A/img1"]
    'A'
    """
    parts = {folder: list(PurePath(folder).parts) for folder in folders}
    if all(len(each) > 1 and each[-1] == "img1" for each in parts.values()):
        parts = {folder: each[:-1] for folder, each in parts.items()}
    shortest = min((len(each) for each in parts.values()), default=0)
    levels = (len(set(level)) for level in zip(*parts.values(), strict=False))
    common = next((depth for depth, names in enumerate(levels) if names > 1), shortest)
    return {folder: "/".join(each[min(common, shortest - 1) :]) for folder, each in parts.items()}
