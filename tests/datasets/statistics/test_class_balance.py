"""Weights, repeat factors and anchors. Oracles: the formulas, one class at a time, and clusters that were drawn."""

import math

import numpy as np
import pytest

from cvplugins.datasets.statistics import (
    cluster_sizes,
    effective_number_weights,
    fit_anchors,
    image_repeat_factors,
    inverse_frequency_weights,
    median_frequency_weights,
    suggested_threshold,
)
from cvplugins.datasets.statistics.anchors import resized_sizes, shape_iou

COUNTS = [5, 80, 1000, 0, 3]


def test_inverse_frequency():
    raw = [1 / count for count in COUNTS if count]
    mean = sum(raw) / len(raw)
    expected = [1 / count / mean if count else 1 for count in COUNTS]
    assert inverse_frequency_weights(COUNTS) == pytest.approx(expected)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 0.9999])
def test_effective_number(beta):
    raw = [(1 - beta) / (1 - beta**count) for count in COUNTS if count]
    mean = sum(raw) / len(raw)
    expected = [(1 - beta) / (1 - beta**count) / mean if count else 1 for count in COUNTS]
    assert effective_number_weights(COUNTS, beta) == pytest.approx(expected)


def test_effective_number_between_its_limits():
    assert effective_number_weights([5, 80, 1000], 0).tolist() == [1, 1, 1]
    assert effective_number_weights([5, 80], 1 - 1e-9) == pytest.approx(inverse_frequency_weights([5, 80]), rel=1e-5)
    with pytest.raises(ValueError, match="below 1"):
        effective_number_weights([1], 1.0)


def test_median_frequency():
    counts, totals = [10, 40, 200, 0], [100, 100, 400, 0]
    frequency = [0.1, 0.4, 0.5]
    assert median_frequency_weights(counts, totals) == pytest.approx([0.4 / each for each in frequency] + [1])


@pytest.mark.parametrize("function", [inverse_frequency_weights, effective_number_weights])
def test_no_class_and_no_object(function):
    assert function([]).tolist() == []
    assert function([0, 0]).tolist() == [1, 1]


def test_repeat_factors_one_image_at_a_time():
    presence = np.random.default_rng(0).random((60, 5)) < [0.9, 0.5, 0.2, 0.05, 0.0]
    threshold = 0.3
    share = [presence[:, k].sum() / 60 for k in range(5)]
    expected = [
        max([1.0] + [max(1.0, math.sqrt(threshold / share[k])) for k in range(5) if row[k]]) for row in presence
    ]
    assert image_repeat_factors(presence, threshold) == pytest.approx(expected)


def test_the_suggested_threshold_keeps_the_epoch_short():
    presence = np.random.default_rng(1).random((300, 6)) < [0.9, 0.5, 0.2, 0.05, 0.01, 0.0]
    threshold = suggested_threshold(presence)
    shares = sorted(share for share in presence.mean(axis=0) if share)
    assert threshold in shares
    assert image_repeat_factors(presence, threshold).mean() <= 1.5
    larger = [share for share in shares if share > threshold]
    assert not larger or image_repeat_factors(presence, larger[0]).mean() > 1.5
    assert suggested_threshold(np.zeros((0, 3), bool)) == 0
    assert suggested_threshold(np.zeros((4, 3), bool)) == 0


def test_shape_iou_is_that_of_boxes_at_one_centre():
    rng = np.random.default_rng(2)
    sizes, anchors = rng.random((20, 2)) * 50 + 1, rng.random((3, 2)) * 50 + 1
    for i, (w, h) in enumerate(sizes):
        for k, (v, g) in enumerate(anchors):
            inside = min(w, v) * min(h, g)
            assert shape_iou(sizes, anchors)[i, k] == pytest.approx(inside / (w * h + v * g - inside))


def test_clusters_that_were_drawn_are_found():
    rng = np.random.default_rng(3)
    centres = np.array([[10, 20], [60, 40], [200, 180]])
    sizes = np.concatenate([centre * rng.normal(1, 0.04, (200, 2)) for centre in centres])
    assert cluster_sizes(sizes, 3) == pytest.approx(centres, rel=0.03)
    assert cluster_sizes(sizes[:2], 5).shape == (2, 2)


def test_anchors_that_were_drawn_are_found():
    rng = np.random.default_rng(4)
    stride, ratio = rng.choice([4, 8, 16, 32, 64], 3000), rng.choice([0.25, 1.2, 5.0], 3000)
    side = 6.0 * stride * rng.normal(1, 0.02, 3000)
    found = fit_anchors(np.stack([side / np.sqrt(ratio), side * np.sqrt(ratio)], axis=1))
    assert found.scale == pytest.approx(6, rel=0.03)
    assert found.ratios == pytest.approx((0.25, 1.2, 5.0), rel=0.03)
    assert found.mean_iou > 0.95 > found.usual_mean_iou


def test_anchors_are_never_worse_than_the_usual_ones():
    rng = np.random.default_rng(5)
    for _ in range(5):
        found = fit_anchors(np.exp(rng.normal(4, 1, (50, 2))))
        assert found.mean_iou >= found.usual_mean_iou
    assert fit_anchors(np.zeros((0, 2))) is None
    assert len(fit_anchors(np.array([[30.0, 30.0]])).clusters) == 1


def test_boxes_are_resized_as_images_are():
    boxes = np.array([[0, 0, 10, 20], [5, 5, 5, 9], [0, 0, 30, 30]], float)
    images = np.array([[500, 375], [500, 375], [100, 400]])
    # 500 x 375 grows by 600 / 375; 100 x 400 by 1000 / 400.
    expected = np.array([[10, 20], [0, 0], [30, 30]]) * np.array([[1.6], [1], [2.5]])
    assert resized_sizes(boxes, images, (600, 1000)) == pytest.approx(expected[[0, 2]])
