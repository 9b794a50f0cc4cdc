"""Object detection: PASCAL VOC's and COCO's average precision and recall from one pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .average_precision import (
    area_average_precision,
    coco_average_precision,
    eleven_point_average_precision,
    precision_recall,
)
from .matching import Floats, Integers, Matches, match_coco, match_voc, overlapping_pairs

__all__ = ["DetectionMetric", "DetectionResult", "ImageDetections", "PrecisionRecallCurve"]

VOC_IOU = 0.5
COCO_IOUS = np.linspace(0.5, 0.95, 10)
MAX_DETECTIONS = (1, 10, 100)


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

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels, np.int64).reshape(-1)
        truth_labels = np.asarray(self.truth_labels, np.int64).reshape(-1)
        difficult = np.zeros(len(truth_labels)) if self.difficult is None else self.difficult
        values: dict[str, tuple[NDArray[Any], tuple[int, ...]]] = {
            "boxes": (_floats(self.boxes), (len(labels), 4)),
            "scores": (_floats(self.scores), (len(labels),)),
            "labels": (labels, labels.shape),
            "truth_boxes": (_floats(self.truth_boxes), (len(truth_labels), 4)),
            "truth_labels": (truth_labels, truth_labels.shape),
            "difficult": (np.asarray(difficult, bool), truth_labels.shape),
        }
        for name, (value, shape) in values.items():
            if value.size == 0 and 0 in shape:
                value = value.reshape(shape)  # an empty list has no second dimension
            if value.shape != shape:
                raise ValueError(f"image {self.image_id}: {name} has shape {value.shape}, expected {shape}")
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ValueError(f"image {self.image_id}: {name} holds a number that is not finite")
            object.__setattr__(self, name, value)


class PrecisionRecallCurve(NamedTuple):
    """Precision and recall of one class after each detection, in falling order of score; each ``(D,)``.

    Empty for a class without ground truth.
    """

    precision: Floats
    recall: Floats
    score: Floats

    def corners(self) -> PrecisionRecallCurve:
        """Return only the points at true positives, which fix the curve and are few."""
        found = np.diff(self.recall, prepend=0.0) > 0
        return PrecisionRecallCurve(self.precision[found], self.recall[found], self.score[found])


@dataclass(frozen=True)
class DetectionResult:
    """The metrics of :class:`DetectionMetric`, all in [0, 1]; NaN for a class without ground truth.

    Attributes:
        classes: Class names, C of them.
        num_images: Images counted.
        num_truths: Ground truths per class that are not difficult, ``(C,)``.
        num_detections: Detections per class, ``(C,)``.
        voc_area: PASCAL VOC's area AP at IoU 0.5, ``(C,)``.
        voc_11point: PASCAL VOC's 11-point AP at IoU 0.5, ``(C,)``.
        coco_ap: COCO's AP at IoU 0.50, 0.55, ..., 0.95, ``(10, C)``.
        coco_ar: COCO's recall with 1, 10 and 100 detections an image and class, mean over IoU, ``(3, C)``.
        curves: PASCAL VOC's precision-recall curve at IoU 0.5 of each class.
    """

    classes: tuple[str, ...]
    num_images: int
    num_truths: Integers
    num_detections: Integers
    voc_area: Floats
    voc_11point: Floats
    coco_ap: Floats
    coco_ar: Floats
    curves: tuple[PrecisionRecallCurve, ...]

    def scalars(self) -> dict[str, float]:
        """Return means over classes, and ``AP50/<class>``; what is undefined (NaN) is left out."""
        values = {
            "AP50": self.voc_area,
            "AP50_11point": self.voc_11point,
            "AP": self.coco_ap,
            "coco_AP50": self.coco_ap[0],
            "AP75": self.coco_ap[5],
            **{f"AR{count}": self.coco_ar[row] for row, count in enumerate(MAX_DETECTIONS)},
        }
        means = {name: _mean(value) for name, value in values.items()}
        means |= {f"AP50/{name}": float(self.voc_area[index]) for index, name in enumerate(self.classes)}
        return {name: value for name, value in means.items() if not np.isnan(value)}

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data that JSON can hold; undefined numbers are None."""
        per_class = {
            name: {
                "num_truths": int(self.num_truths[index]),
                "num_detections": int(self.num_detections[index]),
                "AP50": _plain(self.voc_area[index]),
                "AP50_11point": _plain(self.voc_11point[index]),
                "AP": _plain(_mean(self.coco_ap[:, index])),
                "AP_per_iou": {f"{iou:.2f}": _plain(self.coco_ap[row, index]) for row, iou in enumerate(COCO_IOUS)},
                **{f"AR{count}": _plain(self.coco_ar[row, index]) for row, count in enumerate(MAX_DETECTIONS)},
                "curve": {field: values.tolist() for field, values in self.curves[index].corners()._asdict().items()},
            }
            for index, name in enumerate(self.classes)
        }
        return {"num_images": self.num_images, "mean": self.scalars(), "per_class": per_class}


class DetectionMetric:
    """Average precision and recall over VOC-style annotations, exact whatever the order or split of the images.

    - ``AP50``, ``AP50_11point``: PASCAL VOC's rule, as mmdet's ``VOCMetric`` computes it: float32 boxes whose last
      pixel counts, IoU at least 0.5 (Detectron2 wants more than 0.5), difficult objects neither help nor hurt.
    - ``AP``, ``coco_AP50``, ``AP75``, ``AR1``, ``AR10``, ``AR100``: COCO's rule, as pycocotools computes it, up to
      100 detections an image and class, float64, continuous coordinates. A difficult object is ignored like an
      object outside the area range; it is not a crowd, which could take any number of detections.

    Equal scores keep the order of the image ids and then that of the detections. The state is the arrays of every
    image, so that parts of a data set can be merged in any order.

    Args:
        classes: Class names, at least one.

    Raises:
        ValueError: No class is given.

    Example:
        >>> metric = DetectionMetric(["cat", "dog"])
        >>> metric.update(ImageDetections("a", [[0, 0, 9, 9]], [0.9], [0], [[0, 0, 9, 9]], [0]))
        >>> metric.compute().scalars()["AP50"]
        1.0
    """

    def __init__(self, classes: Sequence[str]) -> None:
        if len(classes) == 0:
            raise ValueError("a detection metric needs the names of its classes, at least one")
        self.classes = tuple(classes)
        self.images: dict[int | str, ImageDetections] = {}

    def update(self, image: ImageDetections) -> None:
        """Add one image.

        Raises:
            ValueError: The image was added before, or a label is none of the classes.
        """
        if image.image_id in self.images:
            raise ValueError(f"image {image.image_id} was added twice")
        for name in ("labels", "truth_labels"):
            labels = getattr(image, name)
            wrong = labels[(labels < 0) | (labels >= len(self.classes))]
            if len(wrong):
                raise ValueError(
                    f"image {image.image_id}: {name} holds {wrong[0]}; there are {len(self.classes)} classes, from 0"
                )
        self.images[image.image_id] = image

    def merge(self, other: DetectionMetric) -> None:
        """Add the images of another part of the data set.

        Raises:
            ValueError: The classes differ, or an image is in both parts.
        """
        if other.classes != self.classes:
            raise ValueError(f"cannot merge metrics of different classes: {self.classes} and {other.classes}")
        for image in other.images.values():
            self.update(image)

    def compute(self) -> DetectionResult:
        """Return the metrics over all images so far."""
        ordered = sorted(self.images.values(), key=lambda image: (isinstance(image.image_id, str), image.image_id))
        truths = _ground_truths(ordered, len(self.classes))
        found = _detections(ordered, len(self.classes))
        voc, coco = _match(found, truths)
        num_truths = np.bincount(truths.label[~truths.difficult], minlength=len(self.classes))
        num_detections = np.bincount(found.label, minlength=len(self.classes))
        by_class = np.split(np.lexsort((-found.score, found.label)), np.cumsum(num_detections)[:-1])
        columns = [
            _class_metrics(own, found, voc, coco, int(count)) for own, count in zip(by_class, num_truths, strict=True)
        ]
        return DetectionResult(
            classes=self.classes,
            num_images=len(ordered),
            num_truths=num_truths,
            num_detections=num_detections,
            voc_area=np.array([column.voc_area for column in columns]),
            voc_11point=np.array([column.voc_11point for column in columns]),
            coco_ap=np.stack([column.coco_ap for column in columns], axis=1),
            coco_ar=np.stack([column.coco_ar for column in columns], axis=1),
            curves=tuple(column.curve for column in columns),
        )


class _Truths(NamedTuple):
    """The ground truth of all images, ordered by group, difficult ones last; G rows."""

    box: Floats
    label: Integers
    group: Integers
    difficult: NDArray[np.bool_]


class _Detections(NamedTuple):
    """The detections of all images, ordered by group and falling score; D rows."""

    box: Floats
    label: Integers
    group: Integers
    score: Floats
    rank: Integers


class _ClassMetrics(NamedTuple):
    voc_area: float
    voc_11point: float
    coco_ap: Floats
    coco_ar: Floats
    curve: PrecisionRecallCurve


def _ground_truths(images: Sequence[ImageDetections], num_classes: int) -> _Truths:
    box, label, difficult = (
        _joined(getattr(image, name) for image in images) for name in ("truth_boxes", "truth_labels", "difficult")
    )
    label = label.astype(np.int64)
    image = np.repeat(np.arange(len(images)), [len(each.truth_labels) for each in images])
    group = image * num_classes + label
    order = np.lexsort((difficult, group))
    return _Truths(box.reshape(-1, 4)[order], label[order], group[order], difficult[order].astype(bool))


def _detections(images: Sequence[ImageDetections], num_classes: int) -> _Detections:
    box, label, score = (_joined(getattr(image, name) for image in images) for name in ("boxes", "labels", "scores"))
    label = label.astype(np.int64)
    image = np.repeat(np.arange(len(images)), [len(each.labels) for each in images])
    group = image * num_classes + label
    order = np.lexsort((-score, group))
    group = group[order]
    rank = np.arange(len(group)) - np.searchsorted(group, group, "left")
    return _Detections(box.reshape(-1, 4)[order], label[order], group, score[order], rank)


def _match(found: _Detections, truths: _Truths) -> tuple[Matches, Matches]:
    """Match by PASCAL VOC's rule at IoU 0.5 and by COCO's at all of its thresholds."""
    voc_boxes, voc_truths = found.box.astype(np.float32), truths.box.astype(np.float32)
    pairs = overlapping_pairs(voc_boxes, found.group, voc_truths, truths.group, VOC_IOU, pixel=1.0)
    voc = match_voc(pairs, len(found.group), truths.difficult, np.array([VOC_IOU]))
    # pycocotools lets an IoU pass that misses the threshold by rounding; so a threshold of 1 can be reached.
    thresholds = np.minimum(COCO_IOUS, 1 - 1e-10)
    kept = np.flatnonzero(found.rank < max(MAX_DETECTIONS))
    boxes, true_boxes = found.box[kept].astype(np.float64), truths.box.astype(np.float64)
    pairs = overlapping_pairs(boxes, found.group[kept], true_boxes, truths.group, thresholds[0])
    pairs = pairs._replace(detection=kept[pairs.detection])
    return voc, match_coco(pairs, len(found.group), found.rank, truths.difficult, thresholds)


def _class_metrics(own: Integers, found: _Detections, voc: Matches, coco: Matches, num_truths: int) -> _ClassMetrics:
    """Sum up one class, whose detections ``own`` are in falling order of score."""
    if num_truths == 0:
        empty = np.zeros(0)
        ap, ar = np.full(len(COCO_IOUS), np.nan), np.full(len(MAX_DETECTIONS), np.nan)
        return _ClassMetrics(np.nan, np.nan, ap, ar, PrecisionRecallCurve(empty, empty, empty))
    precision, recall = precision_recall(voc.true_positive[0, own], voc.ignored[0, own], num_truths)
    curve = PrecisionRecallCurve(precision, recall, found.score[own].astype(np.float64))
    own = own[found.rank[own] < max(MAX_DETECTIONS)]
    hits, ignored = coco.true_positive[:, own], coco.ignored[:, own]
    coco_curves = zip(*precision_recall(hits, ignored, num_truths), strict=True)
    return _ClassMetrics(
        voc_area=area_average_precision(precision, recall),
        voc_11point=eleven_point_average_precision(precision, recall),
        coco_ap=np.array([coco_average_precision(*each) for each in coco_curves]),
        coco_ar=np.array([hits[:, found.rank[own] < count].sum(1).mean() / num_truths for count in MAX_DETECTIONS]),
        curve=curve,
    )


def _joined(arrays: Iterable[NDArray[Any]]) -> NDArray[Any]:
    listed = list(arrays)
    return np.concatenate(listed) if listed else np.zeros(0)


def _floats(values: ArrayLike) -> NDArray[Any]:
    array = np.asarray(values)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def _mean(values: Floats) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
