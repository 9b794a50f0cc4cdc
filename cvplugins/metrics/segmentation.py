"""Semantic segmentation: all measures that a confusion matrix gives, boundary IoU and boundary F1, from one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .label_boundaries import count_boundary_regions, count_contours
from .label_maps import LabelMap, confusion_matrix
from .matching import Floats, Integers
from .undefined import by_class, defined, divide, mean_of_defined

__all__ = ["SegmentationMetric", "SegmentationResult"]

RULES = ("mmseg", "detectron2", "ade20k")


@dataclass(frozen=True)
class SegmentationResult:
    """The measures of :class:`SegmentationMetric`, in [0, 1] (kappa in [-1, 1]); NaN where undefined.

    Attributes:
        classes: Class names, C of them.
        num_images: Images counted.
        settings: The options of the metric.
        confusion: Pixels by labelled class (row) and predicted class (column), int64 ``(C, C)``.
        pixel_accuracy: Share of the pixels that are right.
        frequency_weighted_iou: IoU weighted by the share of the labelled pixels.
        kappa: Cohen's kappa: agreement beyond what chance gives.
        iou: Intersection over union per class, ``(C,)``.
        recall: Share of the labelled pixels that are right, also called class accuracy, ``(C,)``.
        precision: Share of the predicted pixels that are right, ``(C,)``.
        dice: Twice the intersection over the sum of both regions, ``(C,)``; the F-score of beta 1.
        f_score: F-score of the given beta, ``(C,)``.
        boundary_iou: IoU of the pixels near the boundaries, ``(C,)``; None if not asked for.
        boundary_precision: Share of the predicted contour that lies near the labelled one, ``(C,)``, or None.
        boundary_recall: Share of the labelled contour that lies near the predicted one, ``(C,)``, or None.
        boundary_f1: Harmonic mean of these two, ``(C,)``, or None.
    """

    classes: tuple[str, ...]
    num_images: int
    settings: dict[str, Any]
    confusion: Integers
    pixel_accuracy: float
    frequency_weighted_iou: float
    kappa: float
    iou: Floats
    recall: Floats
    precision: Floats
    dice: Floats
    f_score: Floats
    boundary_iou: Floats | None = None
    boundary_precision: Floats | None = None
    boundary_recall: Floats | None = None
    boundary_f1: Floats | None = None

    def per_class(self) -> dict[str, Floats]:
        """Return the measures of each class under the names of the log, as mmseg has them."""
        named = {
            "IoU": self.iou,
            "Acc": self.recall,
            "Dice": self.dice,
            "Fscore": self.f_score,
            "Precision": self.precision,
            "Recall": self.recall,
            "BoundaryIoU": self.boundary_iou,
            "BoundaryPrecision": self.boundary_precision,
            "BoundaryRecall": self.boundary_recall,
            "BoundaryF1": self.boundary_f1,
        }
        return {name: values for name, values in named.items() if values is not None}

    def numbers(self) -> dict[str, float]:
        """Return ``aAcc``, ``fwIoU``, ``kappa``, means such as ``mIoU``, and ``IoU/<class>``; NaN where undefined."""
        values = {"aAcc": self.pixel_accuracy, "fwIoU": self.frequency_weighted_iou, "kappa": self.kappa}
        values |= {f"m{name}": mean_of_defined(each) for name, each in self.per_class().items()}
        return values | {f"IoU/{name}": float(self.iou[index]) for index, name in enumerate(self.classes)}

    def scalars(self) -> dict[str, float]:
        """Return the numbers without those that are undefined."""
        return defined(self.numbers())

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data that JSON can hold; undefined numbers are None."""
        measures = by_class(self.per_class(), len(self.classes))
        labelled, predicted = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        per_class = {
            name: {
                "labelled_pixels": int(labelled[index]),
                "predicted_pixels": int(predicted[index]),
                **measures[index],
            }
            for index, name in enumerate(self.classes)
        }
        return {
            "num_images": self.num_images,
            "settings": self.settings,
            "mean": self.scalars(),
            "per_class": per_class,
            "confusion_matrix": self.confusion.tolist(),
        }


class SegmentationMetric:
    """Accuracy, IoU, Dice, F-score, kappa and boundary measures of label maps, over all pixels of a data set.

    The state is one int64 vector of counts, whatever the number of images: parts of a data set merge by addition,
    and the result is the same to the last bit in any order and split.

    Where evaluations differ, ``rule`` decides what a class without labelled pixels does to the means:

    - ``"mmseg"``: if it is predicted, its IoU, Dice, F-score and precision are 0 and count, as in mmseg's
      ``IoUMetric``; if not, it is left out.
    - ``"detectron2"``: predicted or not, it is left out, as in Detectron2's ``SemSegEvaluator``.
    - ``"ade20k"``: every class counts, with 0 for what is undefined, as in the development kit of the ADE20K scene
      parsing benchmark (Zhou et al., CVPR 2017), whose mean IoU is one of all 150 classes.

    All agree once every class is labelled somewhere, as in ADE20K's validation set. The F-score comes from the counts,
    so a class that is labelled but never right has 0; mmseg divides 0 by 0 there and leaves the class out of
    ``mFscore``.

    Boundary measures cost far more than the others. What is predicted at ignored pixels is ignored in both maps, so
    that a perfect prediction scores 1; the reference codes let it make boundaries. Boundary IoU is that of the paper
    per class; Detectron2's subtracts class numbers, which is the same for an object and a background of number 0
    only. Boundary F1 is that of the pixels of all images; DAVIS averages over images and objects.

    Args:
        classes: Class names, at least one.
        ignore_index: Label of pixels that do not count; all count if None.
        rule: ``"mmseg"``, ``"detectron2"`` or ``"ade20k"``; see above.
        beta: Weight of recall in the F-score.
        boundary: Also measure boundary IoU and boundary F1.
        dilation_ratio: Width of the boundary of boundary IoU, as a share of the image's diagonal.
        tolerance: Distance that boundary F1 forgives: a share of the diagonal, rounded up to whole pixels; pixels if
            at least 1. DAVIS takes 0.008.

    Raises:
        ValueError: No class is given, or an option has no such value.

    Example:
        >>> metric = SegmentationMetric(["sky", "sea"])
        >>> metric.update("a", label=np.array([[0, 0, 1, 255]]), prediction=np.array([[0, 0, 0, 0]]))
        >>> metric.compute().scalars()["mIoU"]  # 2/3 and 0
        0.3333333333333333
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        ignore_index: int | None = 255,
        rule: str = "mmseg",
        beta: float = 1.0,
        boundary: bool = False,
        dilation_ratio: float = 0.02,
        tolerance: float = 0.008,
    ) -> None:
        if len(classes) == 0:
            raise ValueError("a segmentation metric needs the names of its classes, at least one")
        if rule not in RULES:
            raise ValueError(f"rule is {rule!r}, expected one of {', '.join(map(repr, RULES))}")
        for name, value in (("beta", beta), ("dilation_ratio", dilation_ratio), ("tolerance", tolerance)):
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} is {value}, expected a positive number")
        self.classes = tuple(classes)
        self.settings: dict[str, Any] = {"ignore_index": ignore_index, "rule": rule, "beta": beta, "boundary": boundary}
        if boundary:
            self.settings |= {"dilation_ratio": dilation_ratio, "tolerance": tolerance}
        num_classes = len(self.classes)
        # Images, confusion matrix, three counts of count_boundary_regions, four of count_contours.
        self.state: Integers = np.zeros(1 + num_classes * (num_classes + 7 * boundary), np.int64)

    def update(self, image_id: int | str, label: LabelMap, prediction: LabelMap) -> None:
        """Add one image.

        Args:
            image_id: Number or name, for messages.
            label: True classes or ``ignore_index``, ``(H, W)``, any integer dtype; array, or tensor on any device.
            prediction: Predicted classes, ``(H, W)``.

        Raises:
            ValueError: The shapes differ, a map does not hold integers, or a value that counts is no class.
        """
        self.state += self.count(image_id, label, prediction)

    def count(self, image_id: int | str, label: LabelMap, prediction: LabelMap) -> Integers:
        """Return the state of one image alone; arguments and errors as in :meth:`update`."""
        num_classes, ignore_index = len(self.classes), self.settings["ignore_index"]
        try:
            if label.ndim != 2:
                raise ValueError(f"label has shape {tuple(label.shape)}, expected (height, width)")
            counts = [confusion_matrix(label, prediction, num_classes, ignore_index)]
        except ValueError as error:
            raise ValueError(f"image {image_id}: {error}") from None
        if self.settings["boundary"]:
            label, prediction = _without_ignored(label, prediction, num_classes, ignore_index)
            counts += [
                count_boundary_regions(label, prediction, num_classes, self.settings["dilation_ratio"]),
                count_contours(label, prediction, num_classes, self.settings["tolerance"]),
            ]
        return np.concatenate([np.ones(1, np.int64), *(each.reshape(-1) for each in counts)])

    def merge(self, other: SegmentationMetric) -> None:
        """Add the images of another part of the data set.

        Raises:
            ValueError: Classes or options differ.
        """
        if (other.classes, other.settings) != (self.classes, self.settings):
            raise ValueError(
                "cannot merge metrics of different classes or options: "
                f"{self.classes}, {self.settings} and {other.classes}, {other.settings}"
            )
        self.state += other.state

    def compute(self) -> SegmentationResult:
        """Return the measures over all images so far."""
        num_classes, beta = len(self.classes), self.settings["beta"]
        confusion = self.state[1 : 1 + num_classes**2].reshape(num_classes, num_classes).copy()
        right, labelled, predicted = np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
        total = int(labelled.sum())
        # Undefined by Detectron2's rule even though it is predicted.
        left_out = (labelled == 0) & (self.settings["rule"] == "detectron2")
        per_class = {
            "iou": divide(right, labelled + predicted - right, left_out),
            "recall": divide(right, labelled, left_out),
            "precision": divide(right, predicted, left_out),
            "dice": divide(2 * right, labelled + predicted, left_out),
            "f_score": divide((1 + beta**2) * right, beta**2 * labelled + predicted, left_out),
            **self._boundary_measures(left_out),
        }
        if self.settings["rule"] == "ade20k":
            per_class = {name: np.nan_to_num(values) for name, values in per_class.items()}
        agreement = divide(right.sum(), total)
        by_chance = divide(labelled.astype(float) @ predicted.astype(float), float(total) ** 2)
        return SegmentationResult(
            classes=self.classes,
            num_images=int(self.state[0]),
            settings=self.settings,
            confusion=confusion,
            pixel_accuracy=float(agreement),
            frequency_weighted_iou=float(divide(np.nansum(per_class["iou"] * labelled), total)),
            kappa=float(divide(agreement - by_chance, 1 - by_chance)),
            **per_class,
        )

    def _boundary_measures(self, left_out: NDArray[np.bool_]) -> dict[str, Floats]:
        if not self.settings["boundary"]:
            return {}
        counts = self.state[1 + len(self.classes) ** 2 :].reshape(7, -1)
        both, in_label, in_prediction, predicted_near, predicted, labelled_near, labelled = counts
        precision, recall = divide(predicted_near, predicted, left_out), divide(labelled_near, labelled, left_out)
        # Without a contour in one map, what the other has is all wrong; without one in both, nothing is defined.
        exists = (predicted + labelled > 0) & ~left_out
        some, other = np.nan_to_num(precision), np.nan_to_num(recall)
        return {
            "boundary_iou": divide(both, in_label + in_prediction - both, left_out),
            "boundary_precision": precision,
            "boundary_recall": recall,
            "boundary_f1": np.where(exists, np.nan_to_num(divide(2 * some * other, some + other)), np.nan),
        }


def _without_ignored(
    label: LabelMap, prediction: LabelMap, num_classes: int, ignore_index: int | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return both maps on the CPU with ``num_classes`` at ignored pixels, in the smallest dtype."""
    label, prediction = (each.cpu().numpy() if isinstance(each, Tensor) else each for each in (label, prediction))
    dtype = np.uint8 if num_classes < 256 else np.int32
    ignored = np.zeros(label.shape, bool) if ignore_index is None else label == ignore_index
    return tuple(np.where(ignored, num_classes, each).astype(dtype) for each in (label, prediction))  # type: ignore[return-value]
