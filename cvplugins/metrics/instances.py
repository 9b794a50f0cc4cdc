"""Detections and ground truth: an image's as the user gives them, and all images' in columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .detection_rule import DetectionRule
from .matching import Flags, Floats, Integers, Pairs, box_iou, overlapping_pairs

__all__ = ["BoxInstances", "ImageDetections", "Instances", "checked_columns", "joined"]


@dataclass(frozen=True)
class ImageDetections:
    """What was detected in one image and what is there.

    Lists are converted; float32 and float64 stay what they are.

    Args:
        image_id: Number or name; each image counts once.
        boxes: Detections in pixels, ``xyxy``, shape ``(D, 4)``.
        scores: Confidence, any range, ``(D,)``.
        labels: Class indices, ``(D,)``.
        truth_boxes: Ground truth in pixels, ``xyxy``, shape ``(G, 4)``.
        truth_labels: Class indices, ``(G,)``.
        difficult: Ground truths that need not be found, ``(G,)``; none if absent.
        crowd: Ground truths that stand for many objects and need not be found (COCO's ``iscrowd``), ``(G,)``.
        truth_areas: Size of each ground truth in pixels, ``(G,)``, for COCO's size ranges, which go by the area of
            the object's outline; that of its box if absent.

    Raises:
        ValueError: Lengths do not fit each other, or a number is not finite; the message names the image.
    """

    image_id: int | str
    boxes: NDArray[Any]
    scores: NDArray[Any]
    labels: NDArray[Any]
    truth_boxes: NDArray[Any]
    truth_labels: NDArray[Any]
    difficult: NDArray[Any] | None = None
    crowd: NDArray[Any] | None = None
    truth_areas: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        checked_columns(self, boxes="labels", truth_boxes="truth_labels")


def checked_columns(image: Any, **boxes: str) -> None:
    """Convert and check the fields of an image in place.

    Args:
        image: Frozen dataclass with ``image_id``, ``scores``, ``labels``, ``truth_labels``, ``difficult``, ``crowd``,
            ``truth_areas`` and the fields of ``boxes``.
        boxes: Fields of shape ``(N, 4)`` and the labels whose number N is.

    Raises:
        ValueError: A shape does not fit, or a number is not finite.
    """
    labels, truth_labels = (_indices(image, name) for name in ("labels", "truth_labels"))
    found, truths = labels.shape, truth_labels.shape
    columns: dict[str, NDArray[Any]] = {"labels": labels, "truth_labels": truth_labels}
    for name, of in boxes.items():
        columns[name] = _floats(image, name, (*columns[of].shape, 4))
    columns["scores"] = _floats(image, "scores", found)
    for name in ("difficult", "crowd"):
        flags = getattr(image, name)
        columns[name] = (
            np.zeros(truths, bool) if flags is None else _shaped(image, name, np.asarray(flags, bool), truths)
        )
    if image.truth_areas is not None:
        columns["truth_areas"] = _floats(image, "truth_areas", truths).astype(np.float64, copy=False)
    for name, value in columns.items():
        object.__setattr__(image, name, value)


def _indices(image: Any, name: str) -> Integers:
    value = np.asarray(getattr(image, name))
    if value.dtype.kind == "f" and (value != np.floor(value)).any():
        raise ValueError(f"image {image.image_id}: {name} holds {value[value != np.floor(value)][0]}, not an index")
    return value.astype(np.int64, copy=False).reshape(-1)


def _floats(image: Any, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    value = np.asarray(getattr(image, name))
    if value.dtype not in (np.float32, np.float64):
        value = value.astype(np.float64)
    value = _shaped(image, name, value, shape)
    # The sum of squares is quick, and finite only if every number is; it may overflow, hence the second look.
    if not math.isfinite(np.vdot(value, value)) and not np.isfinite(value).all():
        raise ValueError(f"image {image.image_id}: {name} holds a number that is not finite")
    return value


def _shaped(image: Any, name: str, value: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if value.shape != shape:
        if value.size or 0 not in shape:
            raise ValueError(f"image {image.image_id}: {name} has shape {value.shape}, expected {shape}")
        value = value.reshape(shape)  # an empty list has no second dimension
    return value


@dataclass(frozen=True)
class Instances:
    """The D detections and G ground truths of all images, in the order of the images.

    Args:
        num_images: Number of images.
        image: Which image each detection is of, ``(D,)``.
        label: Class index, ``(D,)``.
        score: Confidence, ``(D,)``.
        truth_image: Which image each ground truth is of, ``(G,)``.
        truth_label: Class index, ``(G,)``.
        difficult: Ground truths that need not be found, ``(G,)``.
        crowd: Ground truths that stand for many objects, ``(G,)``.
    """

    num_images: int
    image: Integers
    label: Integers
    score: Floats
    truth_image: Integers
    truth_label: Integers
    difficult: Flags
    crowd: Flags

    def pairs(
        self, rule: DetectionRule, enough: Callable[[Floats], Flags], chosen: Integers, num_classes: int = 0
    ) -> Pairs:
        """Return which of the chosen detections overlap enough with which ground truths.

        Args:
            rule: How to measure the overlap.
            enough: Returns which overlaps are wanted.
            chosen: Indices of detections, rising.
            num_classes: Pair only equal labels, which are below this; all if 0.
        """
        raise NotImplementedError

    def areas(self, rule: DetectionRule) -> tuple[Floats, Floats]:
        """Return the sizes in pixels of the detections ``(D,)`` and of the ground truths ``(G,)``.

        Args:
            rule: How to measure the side of a box.
        """
        raise NotImplementedError

    def groups(self, num_classes: int) -> tuple[Integers, Integers]:
        """Return a number for the image and class of each detection and ground truth, or the image if 0 classes."""
        if num_classes == 0:
            return self.image, self.truth_image
        return self.image * num_classes + self.label, self.truth_image * num_classes + self.truth_label


@dataclass(frozen=True)
class BoxInstances(Instances):
    """Instances with boxes, ``xyxy``, ``(D, 4)`` and ``(G, 4)``, and the sizes of ground truths where given, or NaN."""

    box: Floats
    truth_box: Floats
    given_area: Floats

    @classmethod
    def of(cls, images: Sequence[ImageDetections]) -> BoxInstances:
        """Return the columns of images."""
        box, truth_box = (joined(getattr(each, name) for each in images) for name in ("boxes", "truth_boxes"))
        box, truth_box = box.reshape(-1, 4), truth_box.reshape(-1, 4)
        truth_image = np.repeat(np.arange(len(images)), [len(each.truth_labels) for each in images])
        given_area = np.full(len(truth_box), np.nan)
        if any(each.truth_areas is not None for each in images):
            given = np.array([each.truth_areas is not None for each in images])
            given_area[given[truth_image]] = joined(each.truth_areas for each in images if each.truth_areas is not None)
        return cls(
            num_images=len(images),
            image=np.repeat(np.arange(len(images)), [len(each.labels) for each in images]),
            label=joined(each.labels for each in images).astype(np.int64, copy=False),
            score=joined(each.scores for each in images),
            truth_image=truth_image,
            truth_label=joined(each.truth_labels for each in images).astype(np.int64, copy=False),
            difficult=joined(each.difficult for each in images).astype(bool, copy=False),
            crowd=joined(each.crowd for each in images).astype(bool, copy=False),
            box=box,
            truth_box=truth_box,
            given_area=given_area,
        )

    def areas(self, rule: DetectionRule) -> tuple[Floats, Floats]:
        """See :meth:`Instances.areas`."""
        of_box = _box_areas(self.truth_box, rule)
        return _box_areas(self.box, rule), np.where(np.isnan(self.given_area), of_box, self.given_area)

    def pairs(
        self, rule: DetectionRule, enough: Callable[[Floats], Flags], chosen: Integers, num_classes: int = 0
    ) -> Pairs:
        """See :meth:`Instances.pairs`."""
        boxes = _columns_by(rule, self.box, rule.box_decimals)
        truth_boxes = _columns_by(rule, self.truth_box, None)
        crowd = self.crowd if self.crowd.any() else None

        def iou_of(detection: Integers, truth: Integers) -> Floats:
            crowds = None if crowd is None else crowd[truth]
            # Columns, so that the arithmetic runs over neighbours in memory.
            return box_iou(boxes.take(detection, axis=1).T, truth_boxes.take(truth, axis=1).T, rule.pixel, crowds)

        return overlapping_pairs(*self.groups(num_classes), chosen, iou_of, enough)


def _columns_by(rule: DetectionRule, boxes: Floats, decimals: int | None) -> Floats:
    """Return boxes as a rule has them, ``(4, N)``."""
    columns: Floats = boxes.T.astype(rule.precision, order="C")
    if rule.first_pixel:
        # In the precision of the boxes as they came.
        columns[:2] = (boxes[:, :2] + boxes.dtype.type(rule.first_pixel)).T
    return columns if decimals is None else np.round(columns, decimals)


def joined(arrays: Iterable[Any]) -> NDArray[Any]:
    """Return the arrays one after the other; an empty one if there are none."""
    listed = list(arrays)
    return np.concatenate(listed) if listed else np.zeros(0)


def _box_areas(boxes: Floats, rule: DetectionRule) -> Floats:
    boxes = boxes.astype(np.float64)
    longer = rule.pixel - rule.first_pixel  # what is added to the upper left corner, the side loses
    return np.asarray((boxes[:, 2] - boxes[:, 0] + longer) * (boxes[:, 3] - boxes[:, 1] + longer))
