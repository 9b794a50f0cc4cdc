"""What an image's ground truth is after each step of a pipeline, in the pixels of its file."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from mmengine.registry import TRANSFORMS
from numpy.typing import NDArray

from cvplugins.datasets.proving import Link, Objects
from cvplugins.errors import UserError, first_line

__all__ = ["Trace", "build_steps", "listed_objects", "same_draws", "to_input", "trace_boxes", "trace_labels"]

# They mix images or cut them, at random; without them a pipeline shows every object.
MIXING = {
    *("Albu", "CachedMixUp", "CachedMosaic", "CopyPaste", "CutOut", "Expand", "MinIoURandomCrop", "MixUp", "Mosaic"),
    *("RandomAffine", "RandomCenterCropPad", "RandomCrop", "RandomCutOut", "RandomErasing", "RandomMosaic"),
    *("RandomRotate", "RandomRotFlip", "RandomShift", "Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"),
}
# They resample label maps and masks, which cannot be undone.
SIZING = {"FixScaleResize", "Pad", "RandomChoiceResize", "RandomFlip", "RandomResize", "Resize", "ResizeShortestEdge"}
UPSTREAM = ("mmcv.", "mmdet.", "mmseg.")


@dataclass
class Trace:
    """The way of one image through a pipeline.

    Attributes:
        links: What is there after each step, in the pixels of the file.
        sample: The data sample at the end; None if a step dropped the image.
        dropped_by: The step that dropped the image.
        to_input: From the pixels of the file to those of the network's input, ``(3, 3)``.
    """

    links: list[Link] = field(default_factory=list)
    sample: Any = None
    dropped_by: str | None = None
    to_input: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))


def build_steps(pipeline: Sequence[Any], name: str, *, sizing: bool = True) -> tuple[list[tuple[str, Any]], list[str]]:
    """Build the steps of a pipeline that neither mix images nor cut them at random.

    Args:
        pipeline: Steps of the config.
        name: What a step's name begins with.
        sizing: Whether the framework's steps that resize, mirror and pad stay.

    Returns:
        The steps by their names, and the types of those that were left out.

    Raises:
        UserError: A step cannot be built.
    """
    steps, left_out = [], []
    for number, node in enumerate(pipeline, start=1):
        try:
            step = TRANSFORMS.build(dict(node)) if isinstance(node, Mapping) else node
        except Exception as error:
            raise UserError(f"{name}, step {number}: {first_line(error)}") from error
        kind = type(step).__name__
        of_framework = type(step).__module__.startswith(UPSTREAM)
        parts = {type(each).__name__ for each in _inside(step)} if of_framework else set()
        if of_framework and parts & (MIXING if sizing else MIXING | SIZING):
            left_out += [kind] if parts & MIXING else []
            continue
        steps.append((f"{name}, step {number} ({kind})", step))
    return steps, left_out


def _inside(step: Any) -> Iterator[Any]:
    """Yield a step and, of those that choose among others, these."""
    yield step
    inner = getattr(step, "transforms", None)
    for each in inner if isinstance(inner, (list, tuple)) else ():
        if callable(each):
            yield from _inside(each)


@contextlib.contextmanager
def same_draws(seed: int) -> Iterator[None]:
    """Let everything that is drawn inside be the same for the same seed; what comes after goes on as before."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def listed_objects(info: Mapping[str, Any]) -> Objects:
    """Return the objects of an image as a dataset of mmdet lists them."""
    found = info.get("instances", [])
    return Objects(
        np.array([each["bbox"] for each in found], np.float64).reshape(-1, 4),
        np.array([each["bbox_label"] for each in found], np.int64),
        np.array([bool(each.get("ignore_flag", 0)) for each in found], bool),
    )


def trace_boxes(
    info: dict[str, Any], steps: Sequence[tuple[str, Any]], *, way_back: bool = True, masks: bool = False
) -> Trace:
    """Take an image of mmdet through a pipeline.

    Args:
        info: What the dataset lists of it.
        steps: Of :func:`build_steps`.
        way_back: Whether boxes are taken back to the pixels of the file; else they are kept as they are.
        masks: Whether to keep masks, which must have the file's pixels.

    Raises:
        UserError: A step fails.
    """
    trace, image = Trace(), str(info.get("img_path"))
    results: Any = info
    for name, step in steps:
        results = _after(step, name, results, image)
        if results is None:
            trace.dropped_by = name
            return trace
        if "data_samples" in results:
            trace.sample = results["data_samples"]
            matrix = trace.to_input if way_back else np.eye(3)
            packed = _packed(trace.sample, matrix, masks)
            trace.links += [] if packed is None else [Link(name, packed)]
            return trace
        if results.get("homography_matrix") is not None:
            trace.to_input = np.asarray(results["homography_matrix"], np.float64)
        if "gt_bboxes" in results and "gt_bboxes_labels" in results:
            matrix = trace.to_input if way_back else np.eye(3)
            trace.links.append(Link(name, _loaded(results, matrix, masks)))
    raise UserError(f"{steps[0][0] if steps else 'pipeline'}: no PackDetInputs at its end")


def trace_labels(info: dict[str, Any], steps: Sequence[tuple[str, Any]]) -> Trace:
    """Take an image of mmseg through a pipeline; label maps stay in the pixels that a step gives them.

    Raises:
        UserError: A step fails.
    """
    trace, image = Trace(), str(info.get("img_path"))
    results: Any = info
    for name, step in steps:
        results = _after(step, name, results, image)
        if results is None:
            trace.dropped_by = name
            return trace
        if "data_samples" in results:
            trace.sample = results["data_samples"]
            if "gt_sem_seg" in trace.sample:
                trace.links.append(Link(name, trace.sample.gt_sem_seg.data[0].numpy()))
            return trace
        if "gt_seg_map" in results:
            trace.links.append(Link(name, np.array(results["gt_seg_map"])))
    raise UserError(f"{steps[0][0] if steps else 'pipeline'}: no PackSegInputs at its end")


def to_input(boxes: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return boxes ``xyxy`` after a change of the image by a matrix."""
    if not len(boxes):
        return boxes
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
    moved = np.concatenate([corners, np.ones((len(corners), 1))], axis=1) @ matrix.T
    moved = (moved[:, :2] / moved[:, 2:]).reshape(-1, 4, 2)
    low, high = moved.min(axis=1), moved.max(axis=1)
    exchanged = boxes[:, 2:] < boxes[:, :2]  # such a box is wrong, and shall be seen
    return np.concatenate([np.where(exchanged, high, low), np.where(exchanged, low, high)], axis=1)


def _after(step: Any, name: str, results: Any, image: str) -> Any:
    try:
        return step(results)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{name} fails on {image}: {type(error).__name__}: {first_line(error)}") from error


def _loaded(results: Mapping[str, Any], matrix: NDArray[np.float64], masks: bool) -> Objects:
    labels = np.asarray(results["gt_bboxes_labels"], np.int64)
    ignored = np.asarray(results.get("gt_ignore_flags", np.zeros(len(labels))), bool)
    return _objects(results["gt_bboxes"], labels, ignored, matrix, results.get("gt_masks") if masks else None)


def _packed(sample: Any, matrix: NDArray[np.float64], masks: bool) -> Objects | None:
    """Return what a data sample has; None if the pipeline loads no annotations, as where a metric has its own file."""
    parts = [
        _objects(
            each.bboxes,
            np.asarray(each.labels, np.int64),
            np.full(len(each.labels), flag),
            matrix,
            each.masks if masks and "masks" in each else None,
        )
        for each, flag in ((sample.gt_instances, False), (sample.get("ignored_instances"), True))
        if each is not None and "bboxes" in each
    ]
    if not parts:
        return None
    kept = None
    if all(each.masks is not None for each in parts):
        kept = [mask for each in parts for mask in each.masks or ()]
    return Objects(
        np.concatenate([each.boxes for each in parts]),
        np.concatenate([each.labels for each in parts]),
        np.concatenate([each.ignored for each in parts]),
        kept,
    )


def _objects(
    boxes: Any, labels: NDArray[np.int64], ignored: NDArray[np.bool_], matrix: NDArray[np.float64], masks: Any
) -> Objects:
    values = getattr(boxes, "tensor", boxes)  # mmdet's HorizontalBoxes hold one
    array = np.asarray(values, np.float64).reshape(-1, 4)
    kept = None if masks is None else list(np.asarray(masks.to_ndarray(), bool))
    return Objects(to_input(array, np.asarray(np.linalg.inv(matrix), np.float64)), labels, ignored, kept)
