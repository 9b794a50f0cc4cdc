"""Object detection: average precision and recall by any rules, operating points and errors, from one state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .average_precision import PrecisionRecallCurve
from .detection_errors import DetectionErrors, detection_errors
from .detection_rule import DetectionRule, detection_rule
from .instances import BoxInstances, Corners, ImageDetections, ImageId, Instances, image_order
from .matching import Integers
from .operating_points import OperatingPoints, operating_points
from .rule_result import MatchedInstances, RuleResult, match_instances, sum_up
from .undefined import by_class, defined

__all__ = ["DetectionMetric", "DetectionResult"]


@dataclass(frozen=True)
class DetectionResult:
    """The metrics of :class:`DetectionMetric`; a rate that is undefined is NaN.

    Attributes:
        classes: Class names, C of them.
        num_images: Images counted.
        num_truths: Ground truths per class that are neither difficult nor crowds, ``(C,)``.
        num_detections: Detections per class, ``(C,)``.
        rules: Average precision and recall by each rule, by its name.
        operating_points: Precision, recall, F1 and false positives at a score threshold and at the best one, by the
            first rule at its first IoU threshold.
        errors: Confusion matrix and kinds of error, by the same.
        corners: What the corners of the boxes were, see :class:`ImageDetections`; None of masks.
    """

    classes: tuple[str, ...]
    num_images: int
    num_truths: Integers
    num_detections: Integers
    rules: dict[str, RuleResult]
    operating_points: OperatingPoints
    errors: DetectionErrors
    corners: Corners | None = None

    @property
    def first_rule(self) -> RuleResult:
        """The rule that the operating points, the errors and the numbers per class in the log go by."""
        return next(iter(self.rules.values()))

    @property
    def curves(self) -> tuple[PrecisionRecallCurve, ...]:
        """Precision-recall curve of each class by the first rule at its first IoU threshold."""
        return self.first_rule.curves

    def numbers(self) -> dict[str, float]:
        """Return means over classes, and the first rule's own number per class; NaN where undefined.

        A name that an earlier rule has used gets the name of its rule in front: ``coco_AP50``.
        """
        found: dict[str, float] = {}
        for rule, result in self.rules.items():
            found |= {f"{rule}_{name}" if name in found else name: value for name, value in result.numbers().items()}
        points = self.operating_points.numbers()
        found |= points if self.num_truths.any() else dict.fromkeys(points, float("nan"))
        headline = self.first_rule.headline
        per_class = zip(self.classes, self.first_rule.per_class()[headline], strict=True)
        return found | {f"{headline}/{name}": float(value) for name, value in per_class}

    def scalars(self) -> dict[str, float]:
        """Return the numbers without those that are undefined."""
        return defined(self.numbers())

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data that JSON can hold; undefined numbers are None."""
        rules = {name: result.as_dicts() for name, result in self.rules.items()}
        points = by_class(self.operating_points.per_class(), len(self.classes))
        errors = self.errors.per_class()
        per_class = {
            name: {
                "num_truths": int(self.num_truths[index]),
                "num_detections": int(self.num_detections[index]),
                **{rule: numbers[index] for rule, numbers in rules.items()},
                **points[index],
                "errors": {key: int(values[index]) for key, values in errors.items()},
                "left_out": int(self.errors.left_out[index]),
                "curve": {field: values.tolist() for field, values in self.curves[index].corners()._asdict().items()},
            }
            for index, name in enumerate(self.classes)
        }
        return {
            "num_images": self.num_images,
            "settings": {
                "score_threshold": self.operating_points.score_threshold,
                "corners": self.corners,
                "rules": {name: result.settings() for name, result in self.rules.items()},
            },
            "mean": self.scalars(),
            "per_class": per_class,
            "confusion_matrix": {
                "rows_true_columns_detected": [*self.classes, "background"],
                "counts": self.errors.confusion.tolist(),
            },
        }


class DetectionMetric:
    """Average precision and recall, exact whatever the order or split of the images.

    The rules (:data:`cvplugins.metrics.DETECTION_RULES`, or your own :class:`cvplugins.metrics.DetectionRule`):

    - ``"voc2007"``, ``"voc2012"``: as mmdet's ``VOCMetric`` computes with ``eval_mode="11points"`` and ``"area"``:
      float32 boxes whose last pixel counts, IoU at least 0.5.
    - ``"coco"``: as pycocotools computes: ten IoU thresholds, up to 100 detections an image and class, float64; a box
      whose ends are swapped is left out of AP and AR, not of operating points and errors.
    - ``"coco_mmdet"``: as mmdet's ``CocoMetric`` computes by default: the mean AP with 100 detections, everything else
      with up to 1,000.
    - ``"detectron2"``, ``"detectron2_2012"``: as Detectron2's ``PascalVOCDetectionEvaluator`` computes on VOC 2007
      and 2012: rounded scores and boxes, IoU of more than ten thresholds. Its boxes have ``corners="edges"``.

    Difficult objects and crowds neither help nor hurt. In COCO's rule a difficult object takes one detection, like an
    object outside the size range, a crowd any number. Equal scores keep the order of the image ids and then that of
    the detections. The state is the arrays of every image, so that parts of a data set can be merged in any order.

    Args:
        classes: Class names, at least one.
        rules: What :func:`cvplugins.metrics.detection_rule` takes, at least one; the first one also decides operating
            points and errors.
        score_threshold: Where to measure precision, recall, F1, false positives per image and errors.

    Raises:
        ValueError: No class or no rule is given, two rules have one name, or no rule has a name.

    Example:
        >>> metric = DetectionMetric(["cat", "dog"], rules=["coco"])
        >>> metric.update(ImageDetections("a", [[0, 0, 9, 9]], [0.9], [0], [[0, 0, 9, 9]], [0]))
        >>> metric.compute().scalars()["AP75"]
        1.0
    """

    def __init__(
        self,
        classes: Sequence[str],
        rules: str | Sequence[str | DetectionRule | Mapping[str, Any]] = ("voc2012", "coco"),
        score_threshold: float = 0.5,
    ) -> None:
        if len(classes) == 0:
            raise ValueError("a detection metric needs the names of its classes, at least one")
        self.classes = tuple(classes)
        self.rules = tuple(detection_rule(rule) for rule in ([rules] if isinstance(rules, str) else rules))
        if not self.rules or len({rule.name for rule in self.rules}) < len(self.rules):
            raise ValueError(f"a detection metric needs rules of different names; there are {list(rules)}")
        self.score_threshold = score_threshold
        self.images: dict[ImageId, Any] = {}

    def update(self, image: ImageDetections) -> None:
        """Add one image.

        Raises:
            ValueError: The image was added before, a label is none of the classes, or the corners of the boxes are
                others than those of the images before.
        """
        if image.image_id in self.images:
            raise ValueError(f"image {image.image_id} was added twice")
        corners = self._corners()
        if corners is not None and image.corners != corners:
            raise ValueError(
                f"image {image.image_id}: the corners of its boxes are {image.corners}, those of the others {corners}"
            )
        for name in ("labels", "truth_labels"):
            labels = getattr(image, name)
            # As unsigned numbers, of which the negative ones are the highest.
            if labels.view(np.uint64).max(initial=0) >= len(self.classes):
                wrong = labels[(labels < 0) | (labels >= len(self.classes))][0]
                raise ValueError(
                    f"image {image.image_id}: {name} holds {wrong}; there are {len(self.classes)} classes, from 0"
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

    def average_precision(self) -> dict[str, RuleResult]:
        """Return only average precision and recall over all images so far, by each rule, by its name."""
        return {each.rule.name: sum_up(each) for each in self._matched(self._instances())}

    def compute(self) -> DetectionResult:
        """Return all metrics over all images so far."""
        instances = self._instances()
        num_classes = len(self.classes)
        matched = self._matched(instances)
        return DetectionResult(
            classes=self.classes,
            num_images=instances.num_images,
            num_truths=matched[0].num_truths[0],
            num_detections=np.bincount(instances.label, minlength=num_classes),
            rules={each.rule.name: sum_up(each) for each in matched},
            operating_points=operating_points(matched[0], instances.num_images, self.score_threshold),
            errors=detection_errors(instances, matched[0], num_classes, self.score_threshold),
            corners=self._corners(),
        )

    def _matched(self, instances: Instances) -> list[MatchedInstances]:
        return [match_instances(instances, len(self.classes), rule) for rule in self.rules]

    def _corners(self) -> Corners | None:
        return next((image.corners for image in self.images.values()), None)

    def _ordered(self) -> list[Any]:
        return sorted(self.images.values(), key=lambda image: image_order(image.image_id))

    def _instances(self) -> Instances:
        return BoxInstances.of(self._ordered())
