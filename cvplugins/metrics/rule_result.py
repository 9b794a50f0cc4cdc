"""Average precision and recall of one rule: from matches to numbers, all classes, thresholds and sizes at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .average_precision import (
    PrecisionRecallCurve,
    area_average_precision,
    coco_average_precision,
    eleven_point_average_precision,
    precision_envelope,
)
from .detection_rule import DetectionRule
from .instances import Instances
from .matching import Flags, Floats, Integers, Matches, match

__all__ = ["SIZES", "MatchedInstances", "RuleResult", "match_instances", "sum_up"]

# COCO's: up to 32 x 32 pixels is small, up to 96 x 96 medium. An area on a border belongs to both.
SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
AVERAGES = {
    "eleven_point": eleven_point_average_precision,
    "area": area_average_precision,
    "coco": coco_average_precision,
}


@dataclass(frozen=True)
class RuleResult:
    """Average precision and recall by one rule, in [0, 1]; NaN where there is no ground truth to find.

    Rows are IoU thresholds (T), columns classes (C).

    Attributes:
        rule: How detections were matched.
        eleven_point: Average precision by PASCAL VOC 2007's eleven points, ``(T, C)``.
        area: By the area under the curve, PASCAL VOC since 2010, ``(T, C)``.
        coco: By COCO's 101 points, ``(T, C)``.
        by_size: The rule's average precision of small, medium and large objects, ``(3, T, C)``.
        recall: Recall with each of the rule's ``max_detections``, or with all if it has none, ``(M, T, C)``.
        recall_by_size: Recall of small, medium and large objects with all that are evaluated, ``(3, T, C)``.
        curves: Precision-recall curve of each class at the first threshold.
    """

    rule: DetectionRule
    eleven_point: Floats
    area: Floats
    coco: Floats
    by_size: Floats
    recall: Floats
    recall_by_size: Floats
    curves: tuple[PrecisionRecallCurve, ...]

    @property
    def average_precision(self) -> Floats:
        """The one of the three that is the rule's, ``(T, C)``."""
        found: Floats = getattr(self, self.rule.average)
        return found

    @property
    def headline(self) -> str:
        """The name of the rule's own number: ``AP50`` for one threshold of 0.5, ``AP`` for several."""
        thresholds = self.rule.iou_thresholds
        return "AP" if len(thresholds) > 1 else f"AP{100 * thresholds[0]:g}"

    def per_class(self) -> dict[str, Floats]:
        """Return every number by its name, ``(C,)`` each: ``AP``, ``AP50``, ``AP75``, ``AP_small``, ``AR100``, ..."""
        precision, rule = self.average_precision, self.rule
        thresholds = rule.iou_thresholds
        found = {self.headline: precision.mean(axis=0)}
        rows = {f"AP{100 * wanted:g}": row for row, wanted in enumerate(thresholds) if wanted in (0.5, 0.75)}
        found |= {name: precision[row] for name, row in rows.items()}
        if rule.average != "coco":
            other, suffix = (self.area, "area") if rule.average == "eleven_point" else (self.eleven_point, "11point")
            found[f"{self.headline}_{suffix}"] = other.mean(axis=0)
        recalls = [f"AR{count}" for count in rule.max_detections] or ["AR"]
        found |= {name: self.recall[row].mean(axis=0) for row, name in enumerate(recalls)}
        for row, size in enumerate(list(SIZES)[1:]):
            found[f"{self.headline}_{size}"] = self.by_size[row].mean(axis=0)
            found[f"AR_{size}"] = self.recall_by_size[row].mean(axis=0)
        return found

    def scalars(self) -> dict[str, float]:
        """Return the mean over the classes of every number; what is undefined (NaN) is left out.

        Sizes are COCO's: only a rule with COCO's average has them here.
        """
        sized = tuple(f"_{size}" for size in list(SIZES)[1:]) if self.rule.average != "coco" else ()
        means = {name: _mean(values) for name, values in self.per_class().items() if not name.endswith(sized)}
        return {name: value for name, value in means.items() if not np.isnan(value)}

    def settings(self) -> dict[str, Any]:
        """Return the rule as plain data."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self.rule).items()}


class MatchedInstances(NamedTuple):
    """Evaluated detections ordered by class and falling score (D), and their matches in R sizes and T thresholds.

    Attributes:
        rule: How detections were matched.
        detection: Index of each evaluated detection, ``(D,)``.
        score: As the rule rounds it, ``(D,)``.
        start: Where each class begins, and D, ``(C + 1,)``.
        rank: Place of each detection among those of its class in its image, ``(D,)``; 0 where nothing asks for it.
        outside: Detections that are outside of a size, ``(R, D)``.
        num_truths: Ground truths that are not ignored, ``(R, C)``.
        matches: Their ``detection`` counts in this order; rows ``r * T + t``.
    """

    rule: DetectionRule
    detection: Integers
    score: Floats
    start: Integers
    rank: Integers
    outside: Flags
    num_truths: Integers
    matches: Matches


def match_instances(instances: Instances, num_classes: int, rule: DetectionRule) -> MatchedInstances:
    """Match all detections by a rule, for every size and threshold.

    Equal scores keep the order of the images and then that of the detections.
    """
    score = instances.score.astype(np.float64)
    if rule.score_decimals is not None:
        score = np.round(score, rule.score_decimals)
    order = np.argsort(-score, kind="stable")
    order = order[np.argsort(instances.label[order].astype(np.min_scalar_type(max(num_classes, 1))), kind="stable")]
    rank = np.zeros(len(order), np.int64)
    if rule.max_detections:
        rank = _rank_in_group(instances.groups(num_classes)[0][order])
        keep = rank < rule.max_detections[-1]
        order, rank = order[keep], rank[keep]
    start = np.searchsorted(instances.label[order], np.arange(num_classes + 1))
    place = np.zeros(len(score), np.int64)
    place[order] = np.arange(len(order))
    bounds = np.array(list(SIZES.values()))[:, :, None]
    outside = (instances.area[order] < bounds[:, 0]) | (instances.area[order] > bounds[:, 1])
    truth_outside = (instances.truth_area < bounds[:, 0]) | (instances.truth_area > bounds[:, 1])
    outside[0], truth_outside[0] = False, False
    ignored = truth_outside | instances.difficult | instances.crowd
    pairs = instances.pairs(
        rule, lambda iou: rule.reached(iou, rule.iou_thresholds[0]), np.sort(order), num_classes=num_classes
    )
    matches = match(pairs, place, ignored, instances.crowd, rule)
    size, truth = np.nonzero(~ignored)
    counted = np.bincount(size * num_classes + instances.truth_label[truth], minlength=len(SIZES) * num_classes)
    return MatchedInstances(
        rule=rule,
        detection=order,
        score=score[order],
        start=start,
        rank=rank,
        outside=outside,
        num_truths=counted.reshape(len(SIZES), num_classes),
        matches=matches._replace(detection=place[matches.detection]),
    )


def sum_up(matched: MatchedInstances) -> RuleResult:
    """Return the numbers of a rule."""
    rule, num_truths = matched.rule, matched.num_truths
    num_thresholds, (num_sizes, num_classes) = len(rule.iou_thresholds), num_truths.shape
    width = len(matched.detection) + 1
    keys = matched.matches.row * width + matched.matches.detection
    order = np.argsort(keys)
    matches = matched.matches.where(order)
    hit = ~matches.ignored
    row, place = matches.row[hit], matches.detection[hit]
    label = np.searchsorted(matched.start, place, "right") - 1
    number = _number_in_run(row * num_classes + label)
    precision = number / _counted(matched, matches, row, place, label)
    # All hits of a class together, sizes and thresholds inside.
    by_class = np.argsort(label, kind="stable")
    first = np.searchsorted(label[by_class], np.arange(num_classes + 1))
    averages = {name: np.full((num_sizes, num_thresholds, num_classes), np.nan) for name in AVERAGES}
    for index in np.flatnonzero(num_truths[0]):
        own = by_class[first[index] : first[index + 1]]
        for size in np.flatnonzero(num_truths[:, index]):
            lower, upper = np.searchsorted(row[own], (size * num_thresholds, (size + 1) * num_thresholds))
            some = own[lower:upper]
            curve = np.zeros((num_thresholds, num_truths[size, index]))
            curve[row[some] - size * num_thresholds, number[some] - 1] = precision[some]
            envelope = precision_envelope(curve)
            for name in AVERAGES if size == 0 else (rule.average,):
                averages[name][size, :, index] = AVERAGES[name](envelope)
    limits = rule.max_detections or (width,)
    found = [
        np.bincount((row * num_classes + label)[matched.rank[place] < limit], minlength=averages["coco"].size).reshape(
            averages["coco"].shape
        )
        for limit in limits
    ]
    with np.errstate(invalid="ignore"):
        recall = np.stack(found) / np.where(num_truths > 0, num_truths, np.nan)[:, None]
    return RuleResult(
        rule=rule,
        eleven_point=averages["eleven_point"][0],
        area=averages["area"][0],
        coco=averages["coco"][0],
        by_size=averages[rule.average][1:],
        recall=recall[:, 0],
        recall_by_size=recall[-1, 1:],
        curves=_curves(matched, matches),
    )


def _counted(matched: MatchedInstances, matches: Matches, row: Integers, place: Integers, label: Integers) -> Integers:
    """Return how many detections count, of the class of each hit, from the highest score down to the hit.

    Those that count not are in a row the ones matched with an ignored ground truth and the unmatched outside.
    """
    width = len(matched.detection) + 1
    start = matched.start[label]
    counted = place + 1 - start
    size = row // len(matched.rule.iou_thresholds)
    if matched.outside.any():
        outside = np.cumsum(np.pad(matched.outside, ((0, 0), (1, 0))), axis=1)
        counted = counted - (outside[size, place + 1] - outside[size, start])
    matched_outside = matched.outside[matches.row // len(matched.rule.iou_thresholds), matches.detection]
    key = matches.row * width + matches.detection
    for chosen, sign in ((matched_outside, 1), (matches.ignored, -1)):
        if chosen.any():
            keys = key[chosen]
            before = np.searchsorted(keys, row * width + place, "right") - np.searchsorted(keys, row * width + start)
            counted = counted + sign * before
    return counted


def _curves(matched: MatchedInstances, matches: Matches) -> tuple[PrecisionRecallCurve, ...]:
    first = matches.row == 0
    hit, counts = np.zeros(len(matched.detection)), np.ones(len(matched.detection))
    hit[matches.detection[first & ~matches.ignored]] = 1
    counts[matches.detection[first & matches.ignored]] = 0
    curves = []
    for index, num_truths in enumerate(matched.num_truths[0]):
        own = slice(matched.start[index], matched.start[index + 1])
        hits = np.cumsum(hit[own])
        precision = hits / np.maximum(np.cumsum(counts[own]), 1)
        recall = hits / num_truths if num_truths else np.full(len(hits), np.nan)
        curves.append(PrecisionRecallCurve(precision, recall, matched.score[own]))
    return tuple(curves)


def _rank_in_group(groups: Integers) -> Integers:
    """Return how many of the same group come before each, ``(D,)``."""
    order = np.argsort(groups, kind="stable")
    rank = np.empty(len(groups), np.int64)
    rank[order] = _number_in_run(groups[order]) - 1
    return rank


def _number_in_run(values: Integers) -> Integers:
    """Return 1, 2, ... for each run of equal values."""
    if len(values) == 0:
        return values
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
    number: Integers = np.arange(1, len(values) + 1) - np.repeat(starts, np.diff(np.append(starts, len(values))))
    return number


def _mean(values: Floats) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
