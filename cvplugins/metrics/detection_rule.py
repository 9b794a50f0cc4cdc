"""The rules by which evaluators of detections differ, and the well-known sets of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["COCO_IOUS", "DETECTION_RULES", "LENIENT_IOU", "DetectionRule", "detection_rule"]

LENIENT_IOU = 1 - 1e-10
COCO_IOUS = tuple(float(iou) for iou in np.linspace(0.5, 0.95, 10))


@dataclass(frozen=True)
class DetectionRule:
    """How detections are matched with ground truth and how a precision-recall curve becomes one number.

    Args:
        name: What its numbers are called.
        assignment: ``"overlaps_most"``: a detection belongs to the ground truth of its class that it overlaps most,
            taken or not, so that the second one there is a false positive (PASCAL VOC). ``"overlaps_most_free"``: it
            takes the one that it overlaps most of those still free (COCO).
        average: Average precision by the interpolation of ``"eleven_point"`` (VOC 2007), ``"area"`` (VOC 2010 on) or
            ``"coco"`` (101 points). All three are computed; this one gets the plain name ``AP``.
        iou_thresholds: Overlaps that make a match, rising; curves, confusion matrix and errors use the first.
        iou_comparison: Whether an overlap equal to the threshold is enough (``">="``) or not (``">"``).
        pixel: What the side of a box is longer than the difference of its ends: 1 where the last pixel counts.
        max_detections: At how many detections of an image and class to measure the recall, rising; only the best of
            the largest number are evaluated. Empty: all of them.
        mean_detections: At how many of them to measure the mean ``AP`` over thresholds and classes, one of
            ``max_detections``; None for the largest. Everything else goes by the largest.
        precision: Floating-point type of boxes and overlaps.
        score_decimals: Decimals to which scores are rounded; None keeps them.
        box_decimals: Decimals to which detected boxes are rounded; where ``pixel`` is 1, their corners are pixels then.

    Raises:
        ValueError: A value is none of those named here; the message names it.

    Example:
        >>> DetectionRule("strict", iou_thresholds=(0.75,), iou_comparison=">").average
        'coco'
    """

    name: str
    assignment: Literal["overlaps_most", "overlaps_most_free"] = "overlaps_most_free"
    average: Literal["eleven_point", "area", "coco"] = "coco"
    iou_thresholds: tuple[float, ...] = COCO_IOUS
    iou_comparison: Literal[">=", ">"] = ">="
    pixel: float = 0.0
    max_detections: tuple[int, ...] = ()
    mean_detections: int | None = None
    precision: Literal["float32", "float64"] = "float64"
    score_decimals: int | None = None
    box_decimals: int | None = None

    def __post_init__(self) -> None:
        choices = {
            "assignment": ("overlaps_most", "overlaps_most_free"),
            "average": ("eleven_point", "area", "coco"),
            "iou_comparison": (">=", ">"),
            "precision": ("float32", "float64"),
        }
        for field, accepted in choices.items():
            if getattr(self, field) not in accepted:
                raise ValueError(f"rule {self.name}: {field} is {getattr(self, field)!r}; accepted: {accepted}")
        thresholds = np.array(self.iou_thresholds, np.float64)
        within = (thresholds > 0) & (thresholds <= 1)
        if not len(thresholds) or not within.all() or (np.diff(thresholds) <= 0).any():
            raise ValueError(
                f"rule {self.name}: iou_thresholds are {self.iou_thresholds}; they must rise within (0, 1]"
            )
        counts = np.array(self.max_detections)
        if (np.diff(counts) <= 0).any() or (counts < 1).any():
            raise ValueError(f"rule {self.name}: max_detections are {self.max_detections}; they must rise from 1 on")
        if self.mean_detections is not None and self.mean_detections not in self.max_detections:
            raise ValueError(
                f"rule {self.name}: mean_detections is {self.mean_detections}; accepted: {self.max_detections}"
            )
        object.__setattr__(self, "iou_thresholds", tuple(float(each) for each in self.iou_thresholds))
        object.__setattr__(self, "max_detections", tuple(int(each) for each in self.max_detections))

    @property
    def measures_sizes(self) -> bool:
        """Whether boxes have the width and height that they came with, as in COCO, or reach from corner to corner."""
        is_exact = self.precision == "float64" and self.box_decimals is None
        return is_exact and not self.pixel

    def num_reached(self, iou: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return at how many of the thresholds each overlap is enough.

        >>> detection_rule("detectron2").num_reached(np.array([0.5, 0.56, 1.0]))
        array([ 0,  2, 10])
        """
        return np.searchsorted(self._thresholds(iou), iou, "left" if self.iou_comparison == ">" else "right")

    def reached(self, iou: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return where an overlap is enough for the first threshold.

        >>> detection_rule("detectron2").reached(np.array([0.5, 0.6]))
        array([False,  True])
        """
        first = self._thresholds(iou)[0]
        return np.asarray(iou > first if self.iou_comparison == ">" else iou >= first)

    def _thresholds(self, iou: NDArray[np.floating]) -> NDArray[np.floating]:
        thresholds = np.array(self.iou_thresholds, iou.dtype)
        # pycocotools lets pass what misses a threshold of 1 by rounding.
        lenient = self.precision == "float64" and self.iou_comparison == ">="
        return np.minimum(thresholds, LENIENT_IOU) if lenient else thresholds


# mmdet 3.x evaluation/functional/mean_ap.py as its VOCMetric calls it: float32 boxes whose last pixel counts.
_VOC = DetectionRule("voc2012", "overlaps_most", "area", (0.5,), ">=", pixel=1.0, precision="float32")
# Detectron2 evaluation/pascal_voc_evaluation.py: text files with rounded numbers, and more than the threshold.
_DETECTRON2 = DetectionRule(
    "detectron2",
    "overlaps_most",
    "eleven_point",
    COCO_IOUS,
    ">",
    pixel=1.0,
    score_decimals=3,
    box_decimals=1,
)


DETECTION_RULES: dict[str, DetectionRule] = {
    rule.name: rule
    for rule in (
        replace(_VOC, name="voc2007", average="eleven_point"),
        _VOC,
        DetectionRule("coco", max_detections=(1, 10, 100)),
        # mmdet 3.x evaluation/metrics/coco_metric.py with its default proposal_nums: pycocotools' summary looks for
        # the mean AP at 100 detections, and for AP50, AP75 and the sizes at the last of the three numbers.
        DetectionRule("coco_mmdet", max_detections=(100, 300, 1000), mean_detections=100),
        _DETECTRON2,
        replace(_DETECTRON2, name="detectron2_2012", average="area"),
    )
}


def detection_rule(rule: str | DetectionRule | Mapping[str, Any]) -> DetectionRule:
    """Return the rule of a name, or of options; a rule stays what it is.

    Args:
        rule: A name of :data:`DETECTION_RULES`, or options of :class:`DetectionRule`: with ``base``, the name of the
            rule that they change, which is then called as the option ``name`` says or ``"<base>_changed"``.

    Raises:
        ValueError: No rule or no option has the name.

    >>> detection_rule("voc2007").average
    'eleven_point'
    >>> detection_rule({"base": "voc2012", "iou_comparison": ">"}).name
    'voc2012_changed'
    """
    if isinstance(rule, DetectionRule):
        return rule
    if isinstance(rule, str):
        if rule not in DETECTION_RULES:
            raise ValueError(f"no detection rule is called {rule!r}; there are {', '.join(DETECTION_RULES)}")
        return DETECTION_RULES[rule]
    options = dict(rule)
    base = detection_rule(options.pop("base")) if "base" in options else None
    known = [field.name for field in fields(DetectionRule)]
    unknown = [name for name in options if name not in known]
    if unknown or (base is None and "name" not in options):
        wrong = f"has no option {unknown[0]!r}" if unknown else "needs a name or a base"
        raise ValueError(f"a detection rule {wrong}; its options are base, {', '.join(known)}")
    return DetectionRule(**options) if base is None else replace(base, **{"name": f"{base.name}_changed", **options})
