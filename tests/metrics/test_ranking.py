"""The ranking metrics against pairs counted one by one and against scikit-learn."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from cvplugins.metrics import rank_counts


def random_ranking(seed, size=60, dtype=np.float64, signed=False, ties=False):
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=size) if signed else generator.random(size)
    scores = (np.round(scores * 4) / 4 if ties else scores).astype(dtype)
    return scores, generator.random(size) < 0.4


def auc_by_pairs(scores, positive):
    """How often a positive is above a negative, exactly."""
    pairs = [(p, n) for p in scores[positive] for n in scores[~positive]]
    won = sum(Fraction(1) if p > n else Fraction(1, 2) if p == n else Fraction(0) for p, n in pairs)
    return float(won / len(pairs)) if pairs else math.nan


def curve_by_loops(scores, positive):
    """Counts of positives and negatives that reach each distinct score, falling."""
    return [
        (sum(positive[scores >= score]), sum(~positive[scores >= score])) for score in sorted(set(scores), reverse=True)
    ]


def average_precision_by_loops(scores, positive):
    before, area = 0, 0.0
    for hits, false in curve_by_loops(scores, positive):
        area += (hits - before) / positive.sum() * hits / (hits + false)
        before = hits
    return area


CASES = [
    dict(dtype=dtype, signed=signed, ties=ties)
    for dtype in (np.float32, np.float64)
    for signed in (False, True)
    for ties in (False, True)
]


def name(case):
    return f"{case['dtype'].__name__}{'-signed' * case['signed']}{'-ties' * case['ties']}"


@pytest.mark.parametrize("case", CASES, ids=name)
@pytest.mark.parametrize("seed", range(5))
def test_areas_equal_loops(case, seed):
    scores, positive = random_ranking(seed, **case)
    counts = rank_counts(scores, positive)
    assert counts.roc_auc() == auc_by_pairs(scores, positive)  # to the last bit
    np.testing.assert_allclose(
        counts.average_precision(), average_precision_by_loops(scores, positive), rtol=0, atol=1e-14
    )


def trapezoids_by_loops(scores, positive):
    """Area below straight lines through (recall, precision) at every threshold, from (0, 1)."""
    points = [(0.0, 1.0)]
    points += [(hits / positive.sum(), hits / (hits + false)) for hits, false in curve_by_loops(scores, positive)]
    return sum((right[0] - left[0]) * (left[1] + right[1]) / 2 for left, right in pairwise(points))


@pytest.mark.parametrize("case", CASES, ids=name)
@pytest.mark.parametrize("seed", range(5))
def test_area_by_trapezoids_equals_loops(case, seed):
    scores, positive = random_ranking(seed, **case)
    found = rank_counts(scores, positive).precision_recall_auc()
    np.testing.assert_allclose(found, trapezoids_by_loops(scores, positive), rtol=0, atol=1e-14)


@pytest.mark.parametrize("case", CASES, ids=name)
def test_curves_pass_through_the_points_of_a_loop(case):
    scores, positive = random_ranking(1, **case)
    counts = rank_counts(scores, positive)
    points = np.array([(0, 0), *curve_by_loops(scores, positive)]) / [positive.sum(), (~positive).sum()]
    roc = counts.roc_curve()
    corners = np.stack([roc.true_positive_rate, roc.false_positive_rate], axis=1)
    assert {tuple(corner) for corner in corners} <= {tuple(point) for point in points}
    for recall, false in points:  # what was left out lies on a straight line between corners
        distance = segment_distance(np.array([recall, false]), corners)
        assert distance < 1e-12
    for score, rate in zip(roc.score, roc.true_positive_rate, strict=True):
        assert rate == (scores[positive] >= score).mean()
    curve = counts.precision_recall_curve()
    assert set(curve.score) == set(scores[positive])
    for precision, recall, score in zip(*curve, strict=True):
        assert precision == positive[scores >= score].mean()
        assert recall == (scores[positive] >= score).mean()


def segment_distance(point, corners):
    start, step = corners[:-1], np.diff(corners, axis=0)
    along = np.clip(((point - start) * step).sum(1) / (step**2).sum(1), 0, 1)
    return np.sqrt(((start + along[:, None] * step - point) ** 2).sum(1)).min()


@pytest.mark.parametrize("case", CASES, ids=name)
def test_equals_scikit_learn(case):
    sklearn = pytest.importorskip("sklearn.metrics")
    scores, positive = random_ranking(2, size=20_000, **case)
    counts = rank_counts(scores, positive)
    np.testing.assert_allclose(counts.roc_auc(), sklearn.roc_auc_score(positive, scores), rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        counts.average_precision(), sklearn.average_precision_score(positive, scores), rtol=0, atol=1e-12
    )
    # scikit-learn keeps some points between two steps of one direction; ours are all among its points.
    false, true, _ = sklearn.roc_curve(positive, scores, drop_intermediate=False)
    roc = counts.roc_curve()
    assert set(zip(*roc[:2], strict=True)) <= set(zip(false, true, strict=True))
    np.testing.assert_allclose(np.diff(roc[0]) @ (roc[1][1:] + roc[1][:-1]) / 2, counts.roc_auc(), rtol=0, atol=1e-12)
    precision, recall, threshold = sklearn.precision_recall_curve(positive, scores)
    theirs = {score: pair for score, *pair in zip(threshold, precision, recall, strict=False)}
    assert all(theirs[score] == [p, r] for p, r, score in zip(*counts.precision_recall_curve(), strict=True))


@pytest.mark.parametrize(
    ("scores", "positive", "auc", "precision"),
    [
        ([], [], math.nan, math.nan),
        ([0.5], [True], math.nan, 1.0),
        ([0.5], [False], math.nan, math.nan),
        ([0.5, 0.5, 0.5, 0.5], [True, False, False, True], 0.5, 0.5),
        ([0.0, -0.0], [True, False], 0.5, 0.5),
        ([-1.0, -0.0, 0.0, 1.0], [False, True, False, True], 0.875, 5 / 6),
        ([-np.inf, np.inf], [False, True], 1.0, 1.0),
        ([np.inf, np.inf, 0.0], [False, True, True], 0.25, 7 / 12),
        ([1e-45, 0.0], [True, False], 1.0, 1.0),
        ([3, 2, 1], [True, True, False], 1.0, 1.0),
    ],
)
def test_limiting_cases(scores, positive, auc, precision):
    for dtype in (np.float32, np.float64):
        counts = rank_counts(np.array(scores, dtype), positive)
        np.testing.assert_allclose(
            [counts.roc_auc(), counts.average_precision()], [auc, precision], rtol=0, atol=1e-15, equal_nan=True
        )
        roc = counts.roc_curve()
        ends = [(each[0], each[-1]) for each in roc[:2] if len(each)]
        assert ends == ([] if math.isnan(auc) else [(0, 1), (0, 1)])


def test_mirrored_scores_and_labels_give_the_same_area():
    scores, positive = random_ranking(3, size=1000, ties=True, signed=True)
    area = rank_counts(scores, positive).roc_auc()
    assert rank_counts(-scores, ~positive).roc_auc() == area
    assert rank_counts(scores[::-1], positive[::-1]).roc_auc() == area


def test_arguments_stay_as_they_are():
    scores, positive = random_ranking(4, dtype=np.float32)
    before = scores.copy(), positive.copy()
    rank_counts(scores, positive)
    np.testing.assert_array_equal(scores, before[0])
    np.testing.assert_array_equal(positive, before[1])


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="scores hold NaN"):
        rank_counts([0.5, np.nan], [True, False])
    with pytest.raises(ValueError, match=r"scores \(2,\) and positive \(1,\)"):
        rank_counts([0.5, 0.1], [True])
