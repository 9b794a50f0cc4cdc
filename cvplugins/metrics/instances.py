"""Detections and ground truth: an image's as the user gives them, and all images' in columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .crowded_images import Candidates, narrowed
from .detection_rule import DetectionRule
from .matching import Flags, Floats, Integers, Pairs, box_iou, overlapping_pairs, sized_box_iou

__all__ = [
    "BoxInstances",
    "Corners",
    "ImageDetections",
    "ImageId",
    "Instances",
    "checked_columns",
    "image_order",
    "joined",
]

ImageId = int | str | tuple[int | str, ...]
Corners = Literal["pixels", "edges"]


@dataclass(frozen=True)
class ImageDetections:
    """What was detected in one image and what is there.

    Lists are converted; float32 and float64 stay what they are.

    Args:
        image_id: Number or name, or a tuple of them; each image counts once, and equal scores keep the order of these.
        boxes: Detections in pixels, ``xyxy``, shape ``(D, 4)``.
        scores: Confidence, any range, ``(D,)``.
        labels: Class indices, ``(D,)``.
        truth_boxes: Ground truth in pixels, ``xyxy``, shape ``(G, 4)``.
        truth_labels: Class indices, ``(G,)``.
        difficult: Ground truths that need not be found, ``(G,)``; none if absent.
        crowd: Ground truths that stand for many objects and need not be found (COCO's ``iscrowd``), ``(G,)``.
        truth_areas: Size of each ground truth in pixels, ``(G,)``, for COCO's size ranges, which go by the area of
            the object's outline; that of its box if absent.
        sizes: Width and height of each detection as its source has them, ``(D, 2)``; the differences of the corners if
            absent. COCO's rule goes by them: pycocotools takes ``xywh``, and an IoU that is exactly on a threshold
            does not survive a width that was made from rounded corners.
        truth_sizes: The same of each ground truth, ``(G, 2)``.
        corners: Where the numbers of PASCAL VOC's boxes start. ``"pixels"``: the corners are the first and the last
            pixel, which are part of the box; mmdet takes 1 from all four numbers of the file. ``"edges"``: the last
            pixel lies before the lower right corner; Detectron2 takes 1 from the first two numbers. A rule that counts
            pixels takes edges back to pixels; to all others it makes no difference.

    Raises:
        ValueError: Lengths do not fit each other, a number is not finite, or the corners are none of the two; the
            message names the image.
    """

    image_id: ImageId
    boxes: NDArray[Any]
    scores: NDArray[Any]
    labels: NDArray[Any]
    truth_boxes: NDArray[Any]
    truth_labels: NDArray[Any]
    difficult: NDArray[Any] | None = None
    crowd: NDArray[Any] | None = None
    truth_areas: NDArray[Any] | None = None
    sizes: NDArray[Any] | None = None
    truth_sizes: NDArray[Any] | None = None
    corners: Corners = "pixels"

    def __post_init__(self) -> None:
        if self.corners not in get_args(Corners):
            raise ValueError(f"image {self.image_id}: corners is {self.corners!r}; accepted: {get_args(Corners)}")
        checked_columns(self, boxes="labels", truth_boxes="truth_labels")
        for name, labels in (("sizes", self.labels), ("truth_sizes", self.truth_labels)):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _floats(self, name, (*labels.shape, 2)))


def image_order(image_id: ImageId) -> list[tuple[bool, int | str]]:
    """Return what to sort images by: numbers before names, and tuples by their first part that differs.

    >>> sorted(["10", 10, 2, (2, "b.jpg"), (2, "a.jpg")], key=image_order)
    [2, (2, 'a.jpg'), (2, 'b.jpg'), 10, '10']
    """
    parts = image_id if isinstance(image_id, tuple) else (image_id,)
    return [(isinstance(part, str), part) for part in parts]


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
        self,
        rule: DetectionRule,
        enough: Callable[[Floats], Flags],
        chosen: Integers,
        num_classes: int = 0,
        lowest_iou: float = 0.0,
    ) -> Pairs:
        """Return which of the chosen detections overlap enough with which ground truths.

        Args:
            rule: How to measure the overlap.
            enough: Returns which overlaps are wanted.
            chosen: Indices of detections, rising.
            num_classes: Pair only equal labels, which are below this; all if 0.
            lowest_iou: No overlap below this is enough, which spares pairs; nothing is known if 0.
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
    """Instances with boxes, ``xyxy``, ``(D, 4)`` and ``(G, 4)``, all with the same kind of corners.

    Where given, else NaN: the areas of ground truths ``(G,)``, and widths and heights, ``(D, 2)`` and ``(G, 2)``.
    """

    box: Floats
    truth_box: Floats
    given_area: Floats
    given_size: Floats
    given_truth_size: Floats
    corners: Corners = "pixels"

    @classmethod
    def of(cls, images: Sequence[ImageDetections]) -> BoxInstances:
        """Return the columns of images."""
        box, truth_box = (joined(getattr(each, name) for each in images) for name in ("boxes", "truth_boxes"))
        box, truth_box = box.reshape(-1, 4), truth_box.reshape(-1, 4)
        image, truth_image = (
            np.repeat(np.arange(len(images)), [len(getattr(each, name)) for each in images])
            for name in ("labels", "truth_labels")
        )
        return cls(
            num_images=len(images),
            image=image,
            label=joined(each.labels for each in images).astype(np.int64, copy=False),
            score=joined(each.scores for each in images),
            truth_image=truth_image,
            truth_label=joined(each.truth_labels for each in images).astype(np.int64, copy=False),
            difficult=joined(each.difficult for each in images).astype(bool, copy=False),
            crowd=joined(each.crowd for each in images).astype(bool, copy=False),
            box=box,
            truth_box=truth_box,
            given_area=_given([each.truth_areas for each in images], truth_image, ()),
            given_size=_given([each.sizes for each in images], image, (2,)),
            given_truth_size=_given([each.truth_sizes for each in images], truth_image, (2,)),
            corners=images[0].corners if images else "pixels",
        )

    def areas(self, rule: DetectionRule) -> tuple[Floats, Floats]:
        """See :meth:`Instances.areas`."""
        if rule.measures_sizes:
            found = _sizes(self.box, self.given_size).prod(axis=1)
            truth = _sizes(self.truth_box, self.given_truth_size).prod(axis=1)
        else:
            longer = rule.pixel - self._moved(rule)  # what is added to the upper left corner, the side loses
            found, truth = _box_areas(self.box, longer), _box_areas(self.truth_box, longer)
        return found, np.where(np.isnan(self.given_area), truth, self.given_area)

    def pairs(
        self,
        rule: DetectionRule,
        enough: Callable[[Floats], Flags],
        chosen: Integers,
        num_classes: int = 0,
        lowest_iou: float = 0.0,
    ) -> Pairs:
        """See :meth:`Instances.pairs`."""
        if rule.measures_sizes:
            boxes, truth_boxes = _measured(self.box, self.given_size), _measured(self.truth_box, self.given_truth_size)
        else:
            moved = self._moved(rule)
            boxes, truth_boxes = (_columns_by(rule, each, moved) for each in (self.box, self.truth_box))
            if rule.box_decimals is not None:
                boxes = np.round(boxes, rule.box_decimals)
        crowd = self.crowd if self.crowd.any() else None

        def iou_of(detection: Integers, truth: Integers) -> Floats:
            crowds = None if crowd is None else crowd[truth]
            # Columns, so that the arithmetic runs over neighbours in memory.
            own, others = boxes.take(detection, axis=1), truth_boxes.take(truth, axis=1)
            if rule.measures_sizes:
                return sized_box_iou(own, others, crowds)
            return box_iou(own.T, others.T, rule.pixel, crowds)

        def narrow(candidates: Candidates, detections: Integers) -> Candidates:
            last_pixel = np.array([[0], [0], [rule.pixel], [rule.pixel]])
            own, others = boxes[:4, detections] + last_pixel, truth_boxes[:4] + last_pixel
            return narrowed(candidates, own, others, lowest_iou, self.crowd)

        groups = self.groups(num_classes)
        return overlapping_pairs(*groups, chosen, iou_of, enough, narrow if lowest_iou else None)

    def _moved(self, rule: DetectionRule) -> float:
        """Return by how much upper left corners move before a rule: it counts from the first pixel to the last."""
        return rule.pixel if self.corners == "edges" else 0.0


def _given(columns: Sequence[Any], image: Integers, shape: tuple[int, ...]) -> Floats:
    """Return what some images give of their instances, NaN for those of the others: ``(N, *shape)``."""
    values: Floats = np.full((len(image), *shape), np.nan)
    present = np.array([each is not None for each in columns], bool)
    if present.any():
        values[present[image]] = joined(each for each in columns if each is not None)
    return values


def _sizes(boxes: Floats, given: Floats) -> Floats:
    """Return widths and heights in float64, ``(N, 2)``: those that are given, else what lies between the corners."""
    between = boxes[:, 2:].astype(np.float64) - boxes[:, :2]
    return np.where(np.isnan(given), between, given)


def _measured(boxes: Floats, given: Floats) -> Floats:
    """Return left, top, right, bottom and area as pycocotools makes them of ``xywh``, ``(5, N)``."""
    width, height = _sizes(boxes, given).T
    left, top = boxes[:, 0].astype(np.float64), boxes[:, 1].astype(np.float64)
    return np.stack([left, top, left + width, top + height, width * height])


def _columns_by(rule: DetectionRule, boxes: Floats, moved: float) -> Floats:
    """Return boxes in a rule's precision, their upper left corners moved, ``(4, N)``."""
    columns: Floats = boxes.T.astype(rule.precision, order="C")
    if moved:
        # In the precision of the boxes as they came.
        columns[:2] = (boxes[:, :2] + boxes.dtype.type(moved)).T
    return columns


def joined(arrays: Iterable[Any]) -> NDArray[Any]:
    """Return the arrays one after the other; an empty one if there are none."""
    listed = list(arrays)
    return np.concatenate(listed) if listed else np.zeros(0)


def _box_areas(boxes: Floats, longer: float) -> Floats:
    boxes = boxes.astype(np.float64)
    return np.asarray((boxes[:, 2] - boxes[:, 0] + longer) * (boxes[:, 3] - boxes[:, 1] + longer))
