"""What a detector does at one score: precision, recall, F1, false positives per image; and at which score F1 peaks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .matching import Floats, Integers
from .rule_result import MatchedInstances
from .undefined import defined, divide, mean_of_defined

__all__ = ["OperatingPoints", "operating_points"]

# Dollar et al., Pedestrian detection: an evaluation of the state of the art, TPAMI 2012: nine points from 1 false
# positive in 100 images to 1 an image.
FALSE_POSITIVES_PER_IMAGE = np.logspace(-2, 0, 9)


@dataclass(frozen=True)
class OperatingPoints:
    """Counts and rates per class, ``(C,)`` each; a rate whose divisor is 0 is NaN.

    Attributes:
        score_threshold: Detections of at least this score count.
        true_positives: Objects that were found.
        false_positives: Detections that found none, duplicates included.
        missed: Objects that were not found; difficult ones and crowds are nowhere counted.
        best_score: The score threshold with the highest F1.
        best_precision: Precision at this threshold.
        best_recall: Recall at this threshold.
        false_positives_per_image: False positives over all images, at ``score_threshold``.
        matched_iou: Mean IoU of the objects that were found with their detections.
        log_average_miss_rate: Geometric mean of the miss rates at nine numbers of false positives per image between
            0.01 and 1 (Caltech pedestrians); a point that no score reaches takes the nearest lower one.
    """

    score_threshold: float
    true_positives: Integers
    false_positives: Integers
    missed: Integers
    best_score: Floats
    best_precision: Floats
    best_recall: Floats
    false_positives_per_image: Floats
    matched_iou: Floats
    log_average_miss_rate: Floats

    @property
    def precision(self) -> Floats:
        """Share of the detections that found an object."""
        return divide(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> Floats:
        """Share of the objects that were found."""
        return divide(self.true_positives, self.true_positives + self.missed)

    @property
    def f1(self) -> Floats:
        """Harmonic mean of precision and recall."""
        return divide(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.missed)

    @property
    def best_f1(self) -> Floats:
        """The highest F1 of any score threshold."""
        total = self.best_precision + self.best_recall
        return np.where(total > 0, 2 * self.best_precision * self.best_recall / np.where(total > 0, total, 1), total)

    def per_class(self) -> dict[str, Floats]:
        """Return every rate by its name."""
        return {
            "precision": self.precision,
            "recall": self.recall,
            "F1": self.f1,
            "best_F1": self.best_f1,
            "best_score": self.best_score,
            "FPPI": self.false_positives_per_image,
            "matched_IoU": self.matched_iou,
            "log_average_miss_rate": self.log_average_miss_rate,
        }

    def numbers(self) -> dict[str, float]:
        """Return the means over classes, NaN where undefined for all; ``FPPI`` is the sum, since images are shared."""
        found = {name: mean_of_defined(values) for name, values in self.per_class().items() if name != "best_score"}
        values = self.false_positives_per_image
        return {**found, "FPPI": float("nan") if np.isnan(values).all() else float(np.nansum(values))}

    def scalars(self) -> dict[str, float]:
        """Return the numbers without those that are undefined."""
        return defined(self.numbers())


def operating_points(matched: MatchedInstances, num_images: int, score_threshold: float) -> OperatingPoints:
    """Return the operating points of all classes, at the rule's first IoU threshold.

    Args:
        matched: Detections of all classes and their matches.
        num_images: Number of images.
        score_threshold: Detections of at least this score count.
    """
    first = matched.matches.row == 0
    hit = np.zeros(len(matched.detection), np.int64)
    false = np.ones(len(matched.detection), np.int64)
    hit[matched.matches.detection[first & ~matched.matches.ignored]] = 1
    false[matched.matches.detection[first]] = 0
    num_truths = matched.num_truths[0]
    overlap = np.zeros(len(matched.detection))
    overlap[matched.matches.detection[first]] = matched.matches.iou[first]
    above = np.add.reduceat(
        np.append(np.stack([hit, false, hit * overlap]) * (matched.score >= score_threshold), np.zeros((3, 1)), axis=1),
        matched.start[:-1],
        axis=1,
    )
    above[:, np.diff(matched.start) == 0] = 0  # reduceat gives the next element for an empty part
    hits, false_positives = above[:2].astype(np.int64)
    best = np.full((4, len(num_truths)), np.nan)
    for index in np.flatnonzero(num_truths):
        own = slice(matched.start[index], matched.start[index + 1])
        best[:, index] = _best_and_miss_rate(
            matched.score[own], np.cumsum(hit[own]), np.cumsum(false[own]), int(num_truths[index]), num_images
        )
    return OperatingPoints(
        score_threshold=score_threshold,
        true_positives=hits,
        false_positives=false_positives,
        missed=num_truths - hits,
        best_score=best[0],
        best_precision=best[1],
        best_recall=best[2],
        false_positives_per_image=divide(false_positives, np.full(len(hits), num_images)),
        matched_iou=divide(above[2], hits),
        log_average_miss_rate=best[3],
    )


def _best_and_miss_rate(
    score: Floats, hits: Integers, false: Integers, num_truths: int, num_images: int
) -> tuple[float, float, float, float]:
    """Return score, precision and recall at the highest F1, and the log-average miss rate."""
    if len(score) == 0:
        return np.nan, np.nan, 0.0, 1.0
    # A score threshold takes all detections of equal score or none.
    last = np.append(score[1:] != score[:-1], True)
    score, hits, false = score[last], hits[last], false[last]
    best = int(np.argmax(2 * hits / (hits + false + num_truths)))
    reached = np.searchsorted(false / num_images, FALSE_POSITIVES_PER_IMAGE, "right")
    miss_rate = np.append(1.0, 1 - hits / num_truths)[reached]
    with np.errstate(divide="ignore"):
        log_average = float(np.exp(np.log(miss_rate).mean()))
    counted = hits[best] + false[best]
    precision = float(hits[best] / counted) if counted else np.nan
    return float(score[best]), precision, float(hits[best] / num_truths), log_average
