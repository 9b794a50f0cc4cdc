"""CLEAR MOT: what was found and missed, and where tracks change their identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .track_counts import Counts, ratio
from .track_pairs import EPSILON, Boxes, TrackPairs

__all__ = ["ClearCounts", "clear_counts", "match_clear"]

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]

UNMATCHED, NO_ROW, NO_PARTNER = -1, -2, -3
KEPT = 1000.0  # TrackEval's bonus: what keeps its partner outweighs any sum of IoU


@dataclass(frozen=True)
class ClearCounts(Counts):
    """Counts of CLEAR MOT, as TrackEval names them.

    Attributes:
        tp: Matched boxes.
        fp: Tracked boxes without a match.
        fn: True boxes without a match.
        idsw: Matches with another track than the true track's last match, any number of frames ago.
        frag: Interruptions: how often a true track is matched again after it was not.
        mt: True tracks matched in more than 80 % of their frames.
        pt: True tracks in between.
        ml: True tracks matched in less than 20 % of their frames.
        iou_sum: Sum of the IoU of the matches, float64.
    """

    tp: NDArray[Any]
    fp: NDArray[Any]
    fn: NDArray[Any]
    idsw: NDArray[Any]
    frag: NDArray[Any]
    mt: NDArray[Any]
    pt: NDArray[Any]
    ml: NDArray[Any]
    iou_sum: NDArray[Any]

    def measures(self) -> dict[str, float]:
        """Return the measures of a sum of counts; NaN where a divisor is 0."""
        truths, tracks = self.tp + self.fn, self.mt + self.pt + self.ml
        return {
            "MOTA": ratio(self.tp - self.fp - self.idsw, truths),
            "MOTP": ratio(self.iou_sum, self.tp),
            "Recall": ratio(self.tp, truths),
            "Precision": ratio(self.tp, self.tp + self.fp),
            "TP": float(self.tp),
            "FP": float(self.fp),
            "FN": float(self.fn),
            "IDSW": float(self.idsw),
            "Frag": float(self.frag),
            "MT": float(self.mt),
            "PT": float(self.pt),
            "ML": float(self.ml),
            "MTR": ratio(self.mt, tracks),
            "MLR": ratio(self.ml, tracks),
        }


def match_clear(pairs: TrackPairs, threshold: float) -> Integers:
    """Return the tracked box of each true one, -1 without, as TrackEval matches for CLEAR MOT.

    In each frame what was matched in the frame before stays matched if its IoU is still at least the threshold; the
    others are matched for the greatest sum of IoU. "Before" is the last frame with both true and tracked boxes.
    (motmetrics goes back to the last match of the true track, however long ago.)

    Args:
        pairs: What overlaps.
        threshold: Smallest IoU that matches.

    Returns:
        Rows of ``pairs.tracked``, ``(G,)``.
    """
    near = pairs.near(threshold - EPSILON)
    match = np.full(len(near.truths.unit) + 1, UNMATCHED)
    match[-1] = NO_PARTNER
    disputed = (np.bincount(near.truth)[near.truth] > 1) | (np.bincount(near.found)[near.found] > 1)
    match[near.truth[~disputed]] = near.found[~disputed]
    if disputed.any():
        _settle(near, np.flatnonzero(disputed), match)
    return match[:-1]


def clear_counts(pairs: TrackPairs, match: Integers) -> ClearCounts:
    """Count what :func:`match_clear` matched; arrays ``(units,)``."""
    truths, tracked, num_units = pairs.truths, pairs.tracked, pairs.num_units
    hit = np.flatnonzero(match >= 0)
    tp = np.bincount(truths.unit[hit], minlength=num_units)
    order = hit[np.argsort(truths.track[hit], kind="stable")]
    other = tracked.track[match[order]]
    switched = (np.diff(truths.track[order]) == 0) & (np.diff(other) != 0)
    before = _rows_before(truths, _active(pairs))[hit]
    starts = hit[np.append(match, UNMATCHED)[np.maximum(before, -1)] < 0]  # -1, the last entry, stands for no row
    num_tracks = int(truths.track.max()) + 1 if len(truths.track) else 0
    unit = np.zeros(num_tracks, np.int64)
    unit[truths.track] = truths.unit
    num_starts = np.bincount(truths.track[starts], minlength=num_tracks)
    found = np.bincount(truths.track[hit], minlength=num_tracks)
    share = found / np.bincount(truths.track, minlength=num_tracks)
    return ClearCounts(
        tp=tp,
        fp=np.bincount(tracked.unit, minlength=num_units) - tp,
        fn=np.bincount(truths.unit, minlength=num_units) - tp,
        idsw=np.bincount(truths.unit[order[1:][switched]], minlength=num_units),
        frag=np.bincount(unit, np.maximum(num_starts - 1, 0), minlength=num_units).astype(np.int64),
        mt=np.bincount(unit[share > 0.8], minlength=num_units),
        pt=np.bincount(unit[(share >= 0.2) & (share <= 0.8)], minlength=num_units),
        ml=np.bincount(unit[share < 0.2], minlength=num_units),
        iou_sum=_iou_sum(pairs, match),
    )


def _iou_sum(pairs: TrackPairs, match: Integers) -> Floats:
    matched = match[pairs.truth] == pairs.found
    unit = pairs.truths.unit[pairs.truth[matched]]
    sums: Floats = np.bincount(unit, pairs.iou[matched], minlength=pairs.num_units).astype(np.float64)
    return sums


def _active(pairs: TrackPairs) -> NDArray[np.bool_]:
    """Return which groups have boxes on both sides."""
    truths, tracked = pairs.truths.group, pairs.tracked.group
    size = 1 + max(int(each.max()) if len(each) else -1 for each in (truths, tracked))
    return (np.bincount(truths, minlength=size) > 0) & (np.bincount(tracked, minlength=size) > 0)


def _rows_before(boxes: Boxes, active: NDArray[np.bool_]) -> Integers:
    """Return for each box the row of its track in the last active group before, or ``NO_ROW``."""
    step = np.cumsum(active)[boxes.group]
    rows = np.flatnonzero(active[boxes.group])
    order = rows[np.argsort(boxes.track[rows], kind="stable")]
    follows = (np.diff(boxes.track[order]) == 0) & (np.diff(step[order]) == 1)
    before = np.full(len(boxes.track), NO_ROW)
    before[order[1:][follows]] = order[:-1][follows]
    return before


def _settle(near: TrackPairs, disputed: Integers, match: Integers) -> None:
    """Match what could match several others, in order of time; ``match`` is filled in.

    Args:
        near: Pairs that may match.
        disputed: Those that share a box with another one.
        match: Tracked box of each true one, and a last entry for "no true box", which has no partner.
    """
    active = _active(near)
    before = _rows_before(near.truths, active)[near.truth]
    before_truth = np.where(before == NO_ROW, len(match) - 1, before)
    before_found = _rows_before(near.tracked, active)[near.found]
    truth, found = near.truth[disputed].tolist(), near.found[disputed].tolist()
    last_truth, last_found = before_truth[disputed].tolist(), before_found[disputed].tolist()
    partner = match.tolist()
    group = near.truths.group[near.truth]
    starts = np.flatnonzero(np.diff(group[disputed], prepend=-1)).tolist()
    for start, stop in zip(starts, [*starts[1:], len(disputed)], strict=True):
        span = range(start, stop)
        kept = [place for place in span if partner[last_truth[place]] == last_found[place]]
        taken, taken_found = {truth[place] for place in kept}, {found[place] for place in kept}
        free = [place for place in span if truth[place] not in taken and found[place] not in taken_found]
        if len({truth[place] for place in free}) == len({found[place] for place in free}) == len(free):
            for place in kept + free:
                partner[truth[place]] = found[place]
        else:
            own = np.flatnonzero(group == group[disputed[start]])
            again = np.array([partner[row] for row in before_truth[own].tolist()]) == before_found[own]
            for one, other in _solve(near, own, again):
                partner[one] = other
    match[:] = partner


def _solve(near: TrackPairs, own: Integers, again: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Solve one group over its whole table, so that equal IoU falls as in TrackEval.

    Args:
        near: Pairs that may match.
        own: Those of the group.
        again: Which of them matched in the frame before.

    Returns:
        Rows of the true and the tracked boxes that match.
    """
    from scipy.optimize import linear_sum_assignment  # here, because it takes long to import

    group = near.truths.group[near.truth[own[0]]]
    bounds = [np.searchsorted(side.group, (group, group + 1)) for side in (near.truths, near.tracked)]
    table = np.zeros([stop - start for start, stop in bounds])
    table[near.truth[own] - bounds[0][0], near.found[own] - bounds[1][0]] = near.iou[own] + KEPT * again
    rows, columns = linear_sum_assignment(-table)
    matched = table[rows, columns] > 0
    pairs = rows[matched] + bounds[0][0], columns[matched] + bounds[1][0]
    return list(zip(*(side.tolist() for side in pairs), strict=True))
