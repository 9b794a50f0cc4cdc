"""Average precision and recall of one rule: from matches to numbers, all classes, thresholds and sizes at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from .average_precision import HitCurves, PrecisionRecallCurve
from .detection_rule import COCO_IOUS, LENIENT_IOU, DetectionRule
from .instances import Instances
from .matching import Flags, Floats, Integers, Matches, match
from .undefined import by_class, defined, mean_of_defined

__all__ = ["SIZES", "MatchedInstances", "RuleResult", "match_instances", "sum_up"]

# COCO's: up to 32 x 32 pixels is small, up to 96 x 96 medium. An area on a border belongs to both.
SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}


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
        mean_precision: The rule's average precision with its ``mean_detections``, ``(T, C)``; None if it has none.
    """

    rule: DetectionRule
    eleven_point: Floats
    area: Floats
    coco: Floats
    by_size: Floats
    recall: Floats
    recall_by_size: Floats
    curves: tuple[PrecisionRecallCurve, ...]
    mean_precision: Floats | None = None

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
        # Of COCO's ten only two have a name.
        named = [row for row, each in enumerate(thresholds) if each in (0.5, 0.75) or each not in COCO_IOUS]
        rows = {f"AP{100 * thresholds[row]:g}": row for row in named}
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

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return every number of each class for JSON, also at each IoU threshold."""
        precision = self.average_precision
        columns = {f"{iou:g}": row for iou, row in zip(self.rule.iou_thresholds, precision, strict=True)}
        numbers, by_iou = (by_class(each, precision.shape[1]) for each in (self.per_class(), columns))
        return [{**own, "AP_per_iou": at} for own, at in zip(numbers, by_iou, strict=True)]

    def numbers(self) -> dict[str, float]:
        """Return the mean over the classes of every number, NaN where it is undefined for all.

        Sizes are COCO's: only a rule with COCO's average has them here.
        """
        sized = tuple(f"_{size}" for size in list(SIZES)[1:]) if self.rule.average != "coco" else ()
        means = {name: mean_of_defined(values) for name, values in self.per_class().items() if not name.endswith(sized)}
        if self.mean_precision is not None:
            means[self.headline] = mean_of_defined(self.mean_precision.mean(axis=0))
        return means

    def scalars(self) -> dict[str, float]:
        """Return the numbers without those that are undefined."""
        return defined(self.numbers())

    def settings(self) -> dict[str, Any]:
        """Return the rule as plain data."""
        options = asdict(self.rule).items()
        return {name: list(value) if isinstance(value, tuple) else value for name, value in options}


class MatchedInstances(NamedTuple):
    """Evaluated detections ordered by class and falling score (D), and their matches in R sizes and T thresholds.

    Attributes:
        rule: How detections were matched.
        detection: Index of each evaluated detection, ``(D,)``.
        score: As the rule rounds it, ``(D,)``.
        label: Class of each, ``(D,)``.
        start: Where each class begins, and D, ``(C + 1,)``.
        rank: Place of each detection among those of its class in its image, ``(D,)``; 0 where nothing asks for it.
        outside: Detections that are outside of a size, ``(R, D)``.
        num_truths: Ground truths that are not ignored, ``(R, C)``.
        matches: Their ``detection`` counts in this order; rows ``r * T + t``. Missing are those of a detection outside
            of the size with a ground truth outside of it.
    """

    rule: DetectionRule
    detection: Integers
    score: Floats
    label: Integers
    start: Integers
    rank: Integers
    outside: Flags
    num_truths: Integers
    matches: Matches


def match_instances(instances: Instances, num_classes: int, rule: DetectionRule) -> MatchedInstances:
    """Match all detections by a rule, for every size and threshold.

    Equal scores keep the order of the images and then that of the detections.
    """
    score = instances.score
    if rule.score_decimals is not None:
        score = np.round(score.astype(np.float64), rule.score_decimals)
    order = _by_class_and_score(instances.label, score)
    rank = np.zeros(len(order), np.int64)
    if rule.max_detections:
        rank = _rank_in_group(instances.groups(num_classes)[0][order])
        keep = rank < rule.max_detections[-1]
        order, rank = order[keep], rank[keep]
    label = instances.label[order]
    place = np.full(len(score), -1)
    place[order] = np.arange(len(order))
    bounds = np.array(list(SIZES.values()))[:, :, None]
    area, truth_area = instances.areas(rule)
    outside = (area < bounds[:, 0]) | (area > bounds[:, 1])
    truth_outside = (truth_area < bounds[:, 0]) | (truth_area > bounds[:, 1])
    truth_outside[0] = False
    if rule.assignment == "overlaps_most":  # COCO leaves out even from "all" a box whose ends are swapped
        outside[0] = False
    outside = outside.take(order, axis=1)
    ignored = truth_outside | instances.difficult | instances.crowd
    lowest = min(rule.iou_thresholds[0], LENIENT_IOU)
    evaluated = np.flatnonzero(place >= 0)
    pairs = instances.pairs(rule, rule.reached, evaluated, num_classes=num_classes, lowest_iou=lowest)
    pairs = pairs._replace(detection=place[pairs.detection])
    size, truth = np.nonzero(~ignored)
    counted = np.bincount(size * num_classes + instances.truth_label[truth], minlength=len(SIZES) * num_classes)
    return MatchedInstances(
        rule=rule,
        detection=order,
        score=score[order].astype(np.float64),
        label=label,
        start=np.searchsorted(label, np.arange(num_classes + 1)),
        rank=rank,
        outside=outside,
        num_truths=counted.reshape(len(SIZES), num_classes),
        matches=match(pairs, ignored, outside, instances.crowd, rule),
    )


def sum_up(matched: MatchedInstances) -> RuleResult:
    """Return the numbers of a rule."""
    rule, num_truths, matches = matched.rule, matched.num_truths, matched.matches
    num_thresholds, (num_sizes, num_classes) = len(rule.iou_thresholds), num_truths.shape
    shape = (num_sizes, num_thresholds, num_classes)
    # A run is a class in a row: one curve, of which the true positives are the steps.
    runs = np.arange(np.prod(shape) + 1)
    run = matches.row * num_classes + matched.label[matches.detection]
    hit = np.flatnonzero(~matches.ignored)
    counted = _counted(matched, hit, np.searchsorted(run, runs)[run[hit]])
    run, place = run[hit], matches.detection[hit]
    start = np.searchsorted(run, runs)
    number = np.arange(1, len(hit) + 1) - start[run]
    truths = np.repeat(num_truths, num_thresholds, axis=0).reshape(-1)
    curves = HitCurves.of(number / counted, start, truths)
    found = [np.bincount(run[matched.rank[place] < limit], minlength=len(truths)) for limit in rule.max_detections[:-1]]
    found.append(np.diff(start))
    recall = np.stack(found) / np.where(truths > 0, truths, np.nan)
    averages = {name: getattr(curves, name)().reshape(shape) for name in ("eleven_point", "area", "coco")}
    return RuleResult(
        rule=rule,
        **{name: values[0] for name, values in averages.items()},
        by_size=averages[rule.average][1:],
        recall=recall.reshape(-1, *shape)[:, 0],
        recall_by_size=recall[-1].reshape(shape)[1:],
        curves=_curves(matched),
        mean_precision=_mean_precision(matched),
    )


def _mean_precision(matched: MatchedInstances) -> Floats | None:
    """Return the average precision of the first ``mean_detections`` of each image and class."""
    rule = matched.rule
    if rule.mean_detections is None:
        return None
    first = matched.rank < rule.mean_detections
    # What a detection of lower score takes changes nothing for those before it, so that their matches stay.
    matches = matched.matches.where(first[matched.matches.detection])
    label = matched.label[first]
    return sum_up(
        matched._replace(
            rule=replace(rule, max_detections=(rule.mean_detections,), mean_detections=None),
            detection=matched.detection[first],
            score=matched.score[first],
            label=label,
            start=np.searchsorted(label, np.arange(len(matched.start))),
            rank=matched.rank[first],
            outside=matched.outside[:, first],
            matches=matches._replace(detection=(np.cumsum(first) - 1)[matches.detection]),
        )
    ).average_precision


def _counted(matched: MatchedInstances, hit: Integers, start: Integers) -> Integers:
    """Return how many detections count, of the class of each hit, from the highest score down to the hit.

    Those that count not are in a row the ones matched with an ignored ground truth and the unmatched outside.

    Args:
        matched: Detections and matches.
        hit: Matches that are true positives, ``(H,)``.
        start: The first match in the row and class of each, ``(H,)``.
    """
    matches, width = matched.matches, len(matched.detection) + 1
    outside = np.pad(matched.outside, ((0, 0), (1, 0))).reshape(-1)
    at = matches.row // len(matched.rule.iou_thresholds) * width + matches.detection + 1
    # A match outside counts after all; one inside with an ignored ground truth does not.
    change = np.cumsum(np.append(0, outside[at].astype(np.int64) - matches.ignored))
    counted: Integers = matches.detection[hit] + 1 - matched.start[matched.label[matches.detection[hit]]]
    sums = np.cumsum(outside)
    counted += change[hit + 1] - change[start] - (sums[at[hit]] - sums[at[hit] - counted])
    return counted


def _curves(matched: MatchedInstances) -> tuple[PrecisionRecallCurve, ...]:
    """Return the curve of each class, all sizes, at the first threshold."""
    matches, starts = matched.matches, matched.start[:-1]
    first = matches.row == 0
    hit, counts = np.zeros(len(matched.detection), np.int64), (~matched.outside[0]).astype(np.int64)
    hit[matches.detection[first & ~matches.ignored]] = 1
    counts[matches.detection[first & matches.ignored]] = 0
    hits, counted = (_sum_from_start(values, matched.label, starts) for values in (hit, counts))
    num_truths = matched.num_truths[0].astype(np.float64)
    num_truths[num_truths == 0] = np.nan
    columns = [hits / np.maximum(counted, 1), hits / num_truths[matched.label], matched.score]
    precision, recall, score = (column.astype(np.float64, copy=False) for column in columns)
    spans = (slice(*span) for span in zip(matched.start, matched.start[1:], strict=False))
    return tuple(PrecisionRecallCurve(precision[own], recall[own], score[own]) for own in spans)


def _sum_from_start(values: Integers, label: Integers, starts: Integers) -> Integers:
    """Return the sums of the values so far, those of each class for itself."""
    sums: Integers = np.cumsum(np.append(0, values))
    return np.asarray(sums[1:] - sums[starts][label])


def _by_class_and_score(label: Integers, score: Floats) -> Integers:
    """Return the order by class, then falling score; what is equal keeps its order."""
    # Unstable sorts are three to four times as fast as np.lexsort, with which AP by VOC's rule takes a third longer.
    # They leave equal scores in any order, which the second one mends: its keys are class, place among the different
    # scores, and index, all different.
    order = np.argsort(-score)
    falling = score[order]
    number = np.cumsum(np.append(False, falling[1:] != falling[:-1])[: len(order)])
    width = len(score) + 1
    return np.sort((label[order] * width + number) * width + order) % width


def _rank_in_group(groups: Integers) -> Integers:
    """Return how many of the same group come before each, ``(D,)``."""
    order = np.argsort(groups, kind="stable")
    group = groups[order]
    starts = np.flatnonzero(np.append(True, group[1:] != group[:-1])[: len(group)])
    rank = np.empty(len(groups), np.int64)
    rank[order] = np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))
    return rank
