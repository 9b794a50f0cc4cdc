"""Exact curves and areas of a ranking: ROC, precision-recall, F1 against the threshold; equal scores are one step."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .average_precision import PrecisionRecallCurve
from .matching import Floats, Integers

__all__ = ["RankedCounts", "RocCurve", "rank_counts"]


class RocCurve(NamedTuple):
    """The corners of a ROC curve, from (0, 0) to (1, 1); each ``(M,)``, empty where the curve is undefined.

    ``score`` is the threshold that a sample has to reach; the first one is infinite.
    """

    false_positive_rate: Floats
    true_positive_rate: Floats
    score: Floats


class RankedCounts(NamedTuple):
    """How many positives and negatives reach each score that a positive has; all a ranking metric needs.

    Attributes:
        score: Distinct scores of the positives, falling, ``(K,)``.
        true_positives: Positives with at least this score, ``(K,)``.
        false_positives: Negatives with at least this score, ``(K,)``.
        false_positives_above: Negatives with a higher score, ``(K,)``.
        num_positives: All positives.
        num_negatives: All negatives.
    """

    score: Floats
    true_positives: Integers
    false_positives: Integers
    false_positives_above: Integers
    num_positives: int
    num_negatives: int

    def roc_auc(self) -> float:
        """Return the area under the ROC curve: how probably a positive outranks a negative, ties count a half.

        Summed in integers (Mann and Whitney's U), so only the last division rounds. NaN if one kind is missing.
        """
        if not (self.num_positives and self.num_negatives):
            return float("nan")
        new = np.diff(self.true_positives, prepend=0)
        twice_above = self.false_positives + self.false_positives_above
        twice_won = 2 * self.num_positives * self.num_negatives - int((new * twice_above).sum())
        return twice_won / (2 * self.num_positives * self.num_negatives)

    def average_precision(self) -> float:
        """Return the area under the precision-recall curve by steps; NaN without a positive.

        That is the sum of precision times gained recall. Linear interpolation would be too optimistic: Davis and
        Goadrich, ICML 2006.
        """
        if not self.num_positives:
            return float("nan")
        new = np.diff(self.true_positives, prepend=0)
        precision = self.true_positives / (self.true_positives + self.false_positives)
        return float((new * precision).sum() / self.num_positives)

    def precision_recall_auc(self) -> float:
        """Return the area under the precision-recall curve by trapezoids; NaN without a positive.

        It starts at precision 1 and recall 0, and joins all thresholds by straight lines, as in scikit-learn's
        ``auc(recall, precision)``. Average precision is the safer number: see :meth:`average_precision`.
        """
        if not self.num_positives:
            return float("nan")
        before = self.true_positives - np.diff(self.true_positives, prepend=0)
        reached = self.true_positives / (self.true_positives + self.false_positives)
        # Precision right before a score is reached; 1 where nothing is above it.
        above = before + self.false_positives_above
        left = np.divide(before, above, out=np.ones(len(above)), where=above > 0)
        return float(((self.true_positives - before) * (reached + left)).sum() / 2 / self.num_positives)

    def precision_recall_curve(self) -> PrecisionRecallCurve:
        """Return precision and recall at each score of a positive; between them the recall does not change."""
        precision = self.true_positives / (self.true_positives + self.false_positives)
        return PrecisionRecallCurve(precision, self.true_positives / max(self.num_positives, 1), self.score)

    def roc_curve(self) -> RocCurve:
        """Return the corners of the ROC curve; empty if there are no positives or no negatives."""
        if not (self.num_positives and self.num_negatives):
            return RocCurve(np.zeros(0), np.zeros(0), np.zeros(0))
        before = self.true_positives - np.diff(self.true_positives, prepend=0)
        # Each positive score contributes the point before it and its own; (0, 0) and (1, 1) close the curve.
        false = np.stack([self.false_positives_above, self.false_positives], axis=1).ravel()
        true = np.stack([before, self.true_positives], axis=1).ravel()
        above = np.nextafter(self.score, np.inf)
        score = np.stack([above, self.score], axis=1).ravel()
        false = np.concatenate([[0], false, [self.num_negatives]])
        true = np.concatenate([[0], true, [self.num_positives]])
        score = np.concatenate([[np.inf], score, [-np.inf]])
        moved = np.append(True, (np.diff(false) > 0) | (np.diff(true) > 0))
        false, true, score = false[moved], true[moved], score[moved]
        # A point between two steps of one direction is no corner; the ends are.
        steps = np.diff(false), np.diff(true)
        turn = steps[0][1:] * steps[1][:-1] != steps[0][:-1] * steps[1][1:]
        kept = np.concatenate([[True], turn, [True]])
        false, true, score = false[kept], true[kept], score[kept]
        return RocCurve(false / self.num_negatives, true / self.num_positives, score)


def rank_counts(scores: ArrayLike, positive: ArrayLike) -> RankedCounts:
    """Count positives and negatives by score, in O(n log n).

    Args:
        scores: Any range, no NaN, shape ``(N,)``; float32 and float64 are kept, the rest becomes float64.
        positive: Which samples are positive, bool, ``(N,)``.

    Raises:
        ValueError: The shapes differ, or a score is not a number.

    Example:
        >>> rank_counts([0.9, 0.8, 0.8, 0.1], [True, False, True, False]).roc_auc()
        0.875
    """
    values, flags = _vectors(scores, positive)
    total = len(values)
    values, flags = _sorted(values, flags)
    places = np.flatnonzero(flags)
    if len(places) == 0:
        none = np.zeros(0, np.int64)
        return RankedCounts(np.zeros(0), none, none, none, 0, total)
    own = values[places]
    new = own[1:] != own[:-1]
    first_of_group = np.flatnonzero(np.append(True, new))
    # Negatives stand before the positives of the same score, so most groups begin with their first positive.
    first, last = places[first_of_group], places[np.append(first_of_group[1:], len(places)) - 1]
    start = first.copy()
    mixed = np.flatnonzero((values[np.maximum(first, 1) - 1] == values[first]) & (first > 0))
    start[mixed] = np.searchsorted(values, values[first[mixed]], "left")
    positives_below = first_of_group
    num_positives, num_negatives = len(places), total - len(places)
    after = np.append(positives_below[1:], num_positives)
    return RankedCounts(
        score=values[first][::-1].astype(np.float64),
        true_positives=(num_positives - positives_below)[::-1],
        false_positives=(num_negatives - (start - positives_below))[::-1],
        false_positives_above=(num_negatives - (last + 1 - after))[::-1],
        num_positives=num_positives,
        num_negatives=num_negatives,
    )


def _vectors(scores: ArrayLike, positive: ArrayLike) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    values, flags = np.asarray(scores), np.asarray(positive, bool)
    if values.ndim != 1 or values.shape != flags.shape:
        raise ValueError(f"scores {values.shape} and positive {flags.shape} have to be two vectors of one length")
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float64), flags


def _sorted(values: NDArray[Any], flags: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return both in rising order of value, False before True where values are equal."""
    below, above = _sorted_keys(values, flags)
    one = below.dtype.type(1)
    joined = [-(~below >> one).view(values.dtype), (above >> one).view(values.dtype)]
    return np.concatenate(joined), np.concatenate([_flags_of(below), _flags_of(above)])


def _sorted_keys(values: NDArray[Any], flags: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the negative values and the others as sorted integers, the flag in the lowest bit.

    The bits of a float that is not negative sort like its value and leave the sign bit free. The flag takes its
    place, so that one sort of integers, several times faster than an indirect one, orders both. Those of a negative
    float sort the other way round, hence all of them are turned over, and the flag back.
    """
    lowest = values.min(initial=0.0)
    if np.isnan(lowest):
        raise ValueError("scores hold NaN; a ranking needs numbers")
    bits: type[np.unsignedinteger[Any]] = np.uint32 if values.dtype == np.float32 else np.uint64
    keys = np.ascontiguousarray(values).view(bits) << bits(1)  # drops the sign, that of -0.0 too
    keys |= flags
    count = 0
    below = keys[:0]
    if lowest < 0:
        # Picking values by a mask is slower than sorting them twice: the others go to one end, where they are cut.
        others = -(values >= 0).astype(bits)  # all ones
        below = keys ^ ~bits(1)
        below |= others
        below.sort()
        keys &= others
        count = len(values) - np.count_nonzero(others)
    keys.sort()
    return below[:count], keys[count:]


def _flags_of(keys: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the lowest bits."""
    flags: NDArray[np.bool_] = (keys.astype(np.uint8) & np.uint8(1)).view(bool)
    return flags
