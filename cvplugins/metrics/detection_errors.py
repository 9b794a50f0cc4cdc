"""Why detections are wrong: a confusion matrix with a background, and the kinds of error of each class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from .detection_rule import DetectionRule
from .instances import Instances
from .matching import Flags, Integers, Matches, Pairs, best_pairs, match
from .rule_result import MatchedInstances

__all__ = ["ERRORS", "DetectionErrors", "detection_errors"]

ERRORS = ("localisation", "classification", "duplicate", "background", "classification_and_localisation", "missed")
BACKGROUND_IOU = 0.1


@dataclass(frozen=True)
class DetectionErrors:
    """Detections and objects counted by what became of them, at one score threshold.

    Attributes:
        confusion: Row: true class, column: detected class; the last of both is the background, ``(C + 1, C + 1)``.
            The diagonal holds the objects that were found, the last column those that were not, the last row the
            detections that are on no object or on one that another detection found. An object of another class that
            nobody found is confused with the detection of the highest score that overlaps it enough.
        counts: Errors of each kind and class, ``(6, C)`` in the order of :data:`ERRORS`: of the detected class, for
            ``missed`` of the true one.
        left_out: Detections of each class on difficult objects or crowds, which count nowhere, ``(C,)``.
    """

    confusion: Integers
    counts: Integers
    left_out: Integers

    def per_class(self) -> dict[str, Integers]:
        """Return the errors by their names, ``(C,)`` each."""
        return dict(zip(ERRORS, self.counts, strict=True))


def detection_errors(
    instances: Instances, matched: MatchedInstances, num_classes: int, score_threshold: float
) -> DetectionErrors:
    """Say what became of each detection of at least a score, and of each object.

    The kinds are those of Bolya et al., TIDE, ECCV 2020 (tidecv/quantify.py), in its order; t is the rule's first
    IoU threshold, and 0.1 still counts as background:

    - *localisation*: overlaps an object of its class by more than 0.1, but not enough;
    - *classification*: overlaps an object of another class enough;
    - *duplicate*: overlaps an object of its class enough, which another detection found;
    - *background*: overlaps nothing by more than 0.1;
    - *classification_and_localisation*: what is left, on an object of another class and not enough;
    - *missed*: objects that were not found and that no localisation or classification error overlaps most.

    A detection on a difficult object or a crowd of another class, and on no other object, counts nowhere either.

    Args:
        instances: All detections and ground truths.
        matched: Their matches by a rule.
        num_classes: C.
        score_threshold: Detections of at least this score are looked at.
    """
    rule = replace(matched.rule, iou_thresholds=matched.rule.iou_thresholds[:1])
    outcome = _outcome(instances, matched, score_threshold)
    near = _near(instances, rule, np.flatnonzero(outcome.wrong), outcome)
    on_ignored = near.has(near.enough & ~near.same & ~near.counts) & ~near.has(near.enough & near.counts)
    wrong = outcome.wrong & ~on_ignored
    kinds = _kinds(near, wrong)
    touched = np.zeros(len(outcome.found), bool)
    for kind, chosen in ((0, near.same), (1, ~near.same)):
        pairs = near.pairs.where((kinds[near.pairs.detection] == kind) & chosen & near.counts)
        touched[pairs.truth[best_pairs(pairs)]] = True

    def count(labels: Integers) -> Integers:
        return np.bincount(labels, minlength=num_classes)

    counts = [count(instances.label[kinds == kind]) for kind in range(len(ERRORS) - 1)]
    counts.append(count(instances.truth_label[outcome.missed & ~touched]))

    confused = _confused(near, matched, wrong & (kinds != ERRORS.index("duplicate")), outcome.missed, rule)
    confusion = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    np.add.at(
        confusion, (instances.truth_label[confused.truth], instances.label[matched.detection[confused.detection]]), 1
    )
    hits = count(instances.label[outcome.hit])
    confusion[range(num_classes), range(num_classes)] += hits
    confusion[-1, :-1] = count(instances.label[wrong]) - confusion[:-1, :-1].sum(axis=0) + hits
    confusion[:-1, -1] = count(instances.truth_label[outcome.missed]) - confusion[:-1, :-1].sum(axis=1) + hits
    left_out = count(instances.label[outcome.left_out | on_ignored])
    return DetectionErrors(confusion, np.stack(counts), left_out)


class _Outcome(NamedTuple):
    """What the rule says of each detection ``(D,)`` of at least the score threshold, and of each truth ``(G,)``."""

    hit: Flags
    left_out: Flags
    wrong: Flags
    found: Flags
    missed: Flags
    ignored: Flags


def _outcome(instances: Instances, matched: MatchedInstances, score_threshold: float) -> _Outcome:
    above, hit, left_out = (np.zeros(len(instances.label), bool) for _ in range(3))
    above[matched.detection] = matched.score >= score_threshold
    first = matched.matches.row == 0
    detection, truth = matched.detection[matched.matches.detection[first]], matched.matches.truth[first]
    hit[detection] = ~matched.matches.ignored[first]
    left_out[detection] = matched.matches.ignored[first]
    hit, left_out = hit & above, left_out & above
    ignored = instances.difficult | instances.crowd
    found = np.zeros(len(ignored), bool)
    found[truth[hit[detection]]] = True
    return _Outcome(hit, left_out, above & ~hit & ~left_out, found, ~found & ~ignored, ignored)


class _Near(NamedTuple):
    """Wrong detections and the ground truths of any class that they overlap: P pairs of D detections."""

    pairs: Pairs
    same: Flags  # of the same class
    enough: Flags  # the overlap would do
    counts: Flags  # the ground truth is not ignored
    num_detections: int

    def has(self, chosen: Flags) -> Flags:
        """Return which detections are in a chosen pair, ``(D,)``."""
        there = np.zeros(self.num_detections, bool)
        there[self.pairs.detection[chosen]] = True
        return there


def _near(instances: Instances, rule: DetectionRule, wrong: Integers, outcome: _Outcome) -> _Near:
    pairs = instances.pairs(rule, lambda iou: iou > BACKGROUND_IOU, wrong, lowest_iou=BACKGROUND_IOU)
    return _Near(
        pairs=pairs,
        same=instances.label[pairs.detection] == instances.truth_label[pairs.truth],
        enough=rule.reached(pairs.iou),
        counts=~outcome.ignored[pairs.truth],
        num_detections=len(instances.label),
    )


def _kinds(near: _Near, wrong: Flags) -> Integers:
    """Return the place in :data:`ERRORS` of each detection that is wrong, -1 for the others, ``(D,)``."""
    own, other = near.same & near.counts, ~near.same & near.counts
    duplicate = near.has(own & near.enough)
    conditions = [near.has(own) & ~duplicate, near.has(other & near.enough), duplicate, ~near.has(near.counts)]
    return np.where(wrong, np.select(conditions, range(4), default=4), -1)


def _confused(near: _Near, matched: MatchedInstances, wrong: Flags, missed: Flags, rule: DetectionRule) -> Matches:
    """Match what is wrong with what was missed, the labels of which differ, in falling order of score."""
    possible = near.enough & ~near.same & wrong[near.pairs.detection] & missed[near.pairs.truth]
    pairs = near.pairs.where(possible)
    place = np.empty(len(wrong), np.int64)
    place[matched.detection] = np.arange(len(matched.detection))
    one_to_one = replace(rule, assignment="overlaps_most_free")
    nothing, everything_in = np.zeros((1, len(missed)), bool), np.zeros((1, len(wrong)), bool)
    return match(pairs._replace(detection=place[pairs.detection]), nothing, everything_in, nothing[0], one_to_one)
