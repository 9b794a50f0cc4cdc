"""HOTA: detection and association in balance, over 19 IoU thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .assignment import assign
from .track_counts import Counts
from .track_pairs import EPSILON, TrackPairs, number

__all__ = ["ALPHAS", "HotaCounts", "hota_counts"]

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]

ALPHAS = np.arange(0.05, 0.99, 0.05)  # TrackEval's, to the last bit


@dataclass(frozen=True)
class HotaCounts(Counts):
    """Counts and sums over matches at each IoU threshold ``ALPHAS``; arrays ``(..., 19)``.

    Attributes:
        tp: Matched boxes.
        fp: Tracked boxes without a match.
        fn: True boxes without a match.
        iou_sum: Sum of the IoU of the matches.
        ass_sum: Sum over matches of the Jaccard index of their two tracks.
        ass_re_sum: Sum over matches of the share of the true track that the tracked one covers.
        ass_pr_sum: Sum over matches of the share of the tracked track that covers the true one.
    """

    tp: NDArray[Any]
    fp: NDArray[Any]
    fn: NDArray[Any]
    iou_sum: NDArray[Any]
    ass_sum: NDArray[Any]
    ass_re_sum: NDArray[Any]
    ass_pr_sum: NDArray[Any]

    def curves(self) -> dict[str, Floats]:
        """Return the measures of a sum of counts at each threshold, ``(19,)`` each.

        As in TrackEval, the association is 0 and LocA 1 at a threshold without matches, so that means over thresholds
        are the same; with neither true nor tracked boxes (0 and 1 in TrackEval) all are NaN.
        """
        matched = np.maximum(self.tp, 1)
        curves = {
            "DetA": _share(self.tp, self.tp + self.fn + self.fp),
            "AssA": self.ass_sum / matched,
            "LocA": np.where(self.tp > 0, self.iou_sum / matched, 1.0),
            "DetRe": _share(self.tp, self.tp + self.fn),
            "DetPr": _share(self.tp, self.tp + self.fp),
            "AssRe": self.ass_re_sum / matched,
            "AssPr": self.ass_pr_sum / matched,
        }
        empty = self.tp + self.fp + self.fn == 0
        curves = {"HOTA": np.sqrt(curves["DetA"] * curves["AssA"]), **curves}
        return {name: np.where(empty, np.nan, values) for name, values in curves.items()}

    def measures(self) -> dict[str, float]:
        """Return the means over the thresholds; NaN where undefined."""
        return {name: float(values.mean()) for name, values in self.curves().items()}


def hota_counts(pairs: TrackPairs) -> HotaCounts:
    """Count as TrackEval's ``HOTA``; arrays ``(units, 19)``.

    One matching a frame serves all thresholds: it maximises the sum of IoU times the alignment of the two tracks, which
    is their Jaccard index over the whole sequence with soft matches.

    Reference: Luiten et al., HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking, IJCV 2021,
    arXiv:2009.07736.

    Args:
        pairs: What overlaps at all.
    """
    truths, tracked, iou, num_units = pairs.truths, pairs.tracked, pairs.iou, pairs.num_units
    truth_length, length = np.bincount(truths.track), np.bincount(tracked.track)
    pair, num_pairs = number(truths.track[pairs.truth] * len(length) + tracked.track[pairs.found])
    pair_truth, pair_found = np.zeros((2, num_pairs), np.int64)
    pair_truth[pair], pair_found[pair] = truths.track[pairs.truth], tracked.track[pairs.found]
    lengths = truth_length[pair_truth], length[pair_found]

    soft = np.bincount(pair, _soft_matches(pairs), minlength=num_pairs)
    alignment = soft / (lengths[0] + lengths[1] - soft)
    chosen = assign(pairs.truth, pairs.found, alignment[pair] * iou)
    # A match counts at all thresholds up to its IoU.
    passed = np.searchsorted(ALPHAS - EPSILON, iou[chosen], "right")
    unit = truths.unit[pairs.truth[chosen]]
    tp = _at_thresholds(unit, passed, num_units)
    matches = _at_thresholds(pair[chosen], passed, num_pairs)

    def association(whole: Integers) -> Floats:
        sums = np.zeros((num_units, len(ALPHAS)))
        pair_unit = np.zeros(num_pairs, np.int64)
        pair_unit[pair] = truths.unit[pairs.truth]
        np.add.at(sums, pair_unit, matches * (matches / np.maximum(whole, 1)))
        return sums

    return HotaCounts(
        tp=tp,
        fp=np.bincount(tracked.unit, minlength=num_units)[:, None] - tp,
        fn=np.bincount(truths.unit, minlength=num_units)[:, None] - tp,
        iou_sum=_at_thresholds(unit, passed, num_units, iou[chosen]),
        ass_sum=association((lengths[0] + lengths[1])[:, None] - matches),
        ass_re_sum=association(lengths[0][:, None]),
        ass_pr_sum=association(lengths[1][:, None]),
    )


def _soft_matches(pairs: TrackPairs) -> Floats:
    """Return the IoU of each pair, divided by the union with all that either box overlaps."""
    truth_sum = np.bincount(pairs.truth, pairs.iou)[pairs.truth]
    union = truth_sum + np.bincount(pairs.found, pairs.iou)[pairs.found] - pairs.iou
    return np.where(union > EPSILON, pairs.iou / np.maximum(union, EPSILON), 0)


def _at_thresholds(key: Integers, passed: Integers, num_keys: int, weight: Floats | None = None) -> NDArray[Any]:
    """Count per key (or sum ``weight``) the matches that pass each threshold, ``(num_keys, 19)``."""
    width = len(ALPHAS) + 1
    table = np.bincount(key * width + passed, weight, minlength=num_keys * width).reshape(num_keys, width)
    return np.cumsum(table[:, :0:-1], axis=1)[:, ::-1]


def _share(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    share: Floats = part / np.maximum(whole, 1)
    return share
