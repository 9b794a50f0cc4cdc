"""Non-maximum suppression against loops over the boxes, in their own precision."""

import numpy as np
import pytest
import torch
from ops.cases_nms import random_boxes

from cvplugins.ops.nms import CANDIDATES_AT_ONCE, nms, nms_match, soft_nms

METHODS = ["naive", "linear", "gaussian"]


def tensors(count, seed=1, dtype=torch.float32, whole=False):
    inputs = random_boxes(count, seed, whole)
    return torch.from_numpy(inputs["boxes"]).to(dtype), torch.from_numpy(inputs["scores"]).to(dtype)


def overlap(one, other, offset):
    """Return the IoU of two boxes of NumPy scalars, each step rounded to their type."""
    zero, one_more = one.dtype.type(0), one.dtype.type(offset)
    width = max(zero, min(one[2], other[2]) - max(one[0], other[0]) + one_more)
    height = max(zero, min(one[3], other[3]) - max(one[1], other[1]) + one_more)
    areas = [(box[2] - box[0] + one_more) * (box[3] - box[1] + one_more) for box in (one, other)]
    with np.errstate(invalid="ignore"):
        return width * height / (areas[0] + areas[1] - width * height)


def loop_groups(boxes, scores, suppresses, offset):
    """Return each kept box with those that it suppresses, as indices by falling score."""
    boxes, left, groups = boxes.numpy(), np.argsort(-scores.numpy(), kind="stable").tolist(), []
    while left:
        hit = [other for other in left[1:] if suppresses(overlap(boxes[left[0]], boxes[other], offset))]
        groups.append([left[0], *hit])
        left = [other for other in left[1:] if other not in hit]
    return groups


def loop_soft_nms(boxes, scores, iou_threshold, sigma, min_score, method, offset):
    """Return indices and scores; every box keeps a place, as in mmcv/ops/csrc/pytorch/cpu/nms.cpp."""
    boxes = boxes.numpy()
    kind = boxes.dtype.type
    places = [[score, index] for index, score in enumerate(scores.numpy())]
    first = 0
    while first < len(places):
        best = first
        for place in range(first + 1, len(places)):
            if places[best][0] < places[place][0]:
                best = place
        places[first], places[best] = places[best], places[first]
        place = first + 1
        while place < len(places):
            iou = overlap(boxes[places[first][1]], boxes[places[place][1]], offset)
            factor = kind(1)
            if method == "gaussian":
                factor = np.exp(-(iou * iou) / kind(sigma))
            elif iou >= kind(iou_threshold):
                factor = kind(0) if method == "naive" else kind(1) - iou
            places[place][0] *= factor
            if places[place][0] < kind(min_score):
                places[place] = places[-1]
                places.pop()
            else:
                place += 1
        first += 1
    return [index for _, index in places], [score for score, _ in places]


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, CANDIDATES_AT_ONCE, 3 * CANDIDATES_AT_ONCE + 5])
@pytest.mark.parametrize("whole", [False, True])
def test_nms_equals_a_loop(count, dtype, offset, whole):
    boxes, scores = tensors(count, dtype=dtype, whole=whole)
    threshold = torch.tensor(0.3, dtype=dtype).numpy()
    expected = [group[0] for group in loop_groups(boxes, scores, lambda iou: iou > threshold, offset)]
    kept = nms(boxes, scores, iou_threshold=0.3, offset=offset)
    assert kept.dtype == torch.int64
    assert kept.tolist() == expected


@pytest.mark.parametrize("offset", [0, 1])
def test_an_overlap_that_rounds_to_the_threshold_is_not_above_it(offset):
    # 3 of 10 pixels: in float32 0.3 is 0.300000012, more than the float64 number 0.3.
    boxes = torch.tensor([[0.0, 0.0, 10.0, 1.0], [0.0, 0.0, 3.0, 1.0]]) - torch.tensor([0.0, 0.0, offset, offset])
    assert nms(boxes, torch.tensor([1.0, 0.5]), iou_threshold=0.3, offset=offset).tolist() == [0, 1]
    assert nms(boxes, torch.tensor([1.0, 0.5]), iou_threshold=0.29, offset=offset).tolist() == [0]


def test_the_offset_decides_about_boxes_that_touch():
    boxes, scores = torch.tensor([[0.0, 0.0, 3.0, 3.0], [3.0, 0.0, 6.0, 3.0]]), torch.tensor([1.0, 0.5])
    assert nms(boxes, scores, iou_threshold=0.1).tolist() == [0, 1]
    assert nms(boxes, scores, iou_threshold=0.1, offset=1).tolist() == [0]  # 4 of 28 pixels


@pytest.mark.parametrize("offset", [0, 1])
def test_equal_scores_come_as_torch_sorts_them(offset):
    left = torch.arange(200.0)[:, None] * 10
    boxes = torch.cat([left, left, left + 5, left + 5], 1)  # none overlap
    scores = torch.arange(200).remainder(7).float()
    assert torch.equal(nms(boxes, scores, iou_threshold=0.5, offset=offset), scores.sort(descending=True).indices)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("offset", [0, 1])
def test_half_precision_is_computed_in_float32(dtype, offset):
    boxes, _ = tensors(100, dtype=dtype)
    scores = torch.randperm(100).to(dtype)
    expected = nms(boxes.float(), scores.float(), iou_threshold=0.4, offset=offset)
    assert torch.equal(nms(boxes, scores, iou_threshold=0.4, offset=offset), expected)
    dets, kept = soft_nms(boxes, scores, iou_threshold=0.4, sigma=0.5, min_score=0.1, method="linear", offset=offset)
    options = {"iou_threshold": 0.4, "sigma": 0.5, "min_score": 0.1, "method": "linear", "offset": offset}
    expected_dets, expected_kept = soft_nms(boxes.float(), scores.float(), **options)
    assert dets.dtype == dtype
    assert torch.equal(kept, expected_kept)
    assert torch.equal(dets, expected_dets.to(dtype))


def test_scores_of_another_type_and_a_gap_between_boxes_change_nothing():
    boxes, scores = tensors(100)
    apart = torch.stack([boxes, -boxes], 2)[..., 0]
    assert not apart.is_contiguous()
    expected = nms(boxes, scores, iou_threshold=0.4)
    assert torch.equal(nms(apart, scores.double() * (1 + 1e-12), iou_threshold=0.4), expected)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("whole", [False, True])
def test_nms_match_equals_a_loop(threshold, whole):
    boxes, scores = tensors(3 * CANDIDATES_AT_ONCE + 5, whole=whole)
    rounded = np.float32(threshold)
    expected = loop_groups(boxes, scores, lambda iou: iou >= rounded, offset=0)
    assert nms_match(boxes, scores, iou_threshold=threshold) == expected


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_soft_nms_equals_a_loop(method, offset, dtype):
    boxes, scores = tensors(120, dtype=dtype, whole=True)
    scores = (scores * 10).round() / 10
    options = {"iou_threshold": 0.3, "sigma": 0.5, "min_score": 0.1, "method": method, "offset": offset}
    dets, kept = soft_nms(boxes, scores, **options)
    indices, new_scores = loop_soft_nms(boxes, scores, **options)
    assert 0 < len(kept) < 120
    assert kept.tolist() == indices
    assert torch.equal(dets[:, :4], boxes[kept])
    np.testing.assert_allclose(dets[:, 4].numpy(), new_scores, rtol=1e-5 if method == "gaussian" else 0)


def test_soft_nms_leaves_boxes_without_an_area_where_they_are():
    # The overlap of two such boxes is 0 / 0, and so is the gaussian's factor: NaN, which is never the best.
    boxes = torch.tensor([[3.0, 1.0, 3.0, 1.0], [3.0, 1.0, 3.0, 1.0], [0.0, 0.0, 2.0, 2.0]])
    options = {"iou_threshold": 0.3, "sigma": 0.5, "min_score": 0.1, "method": "gaussian", "offset": 0}
    dets, kept = soft_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), **options)
    indices, scores = loop_soft_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), **options)
    assert kept.tolist() == indices
    np.testing.assert_array_equal(dets[:, 4].numpy(), scores)
    assert torch.isnan(dets[:, 4]).sum() == 1


def test_no_boxes():
    boxes, scores = torch.zeros(0, 4), torch.zeros(0)
    for offset in (0, 1):
        kept = nms(boxes, scores, iou_threshold=0.5, offset=offset)
        assert kept.shape == (0,)
        assert kept.dtype == torch.int64
    assert nms_match(boxes, scores, iou_threshold=0.5) == []
    for method in METHODS:
        dets, kept = soft_nms(boxes, scores, iou_threshold=0.5, sigma=0.5, min_score=0.1, method=method)
        assert dets.shape == (0, 5)
        assert kept.shape == (0,)
        assert kept.dtype == torch.int64


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match=r"method must be one of .*'linear'.* not 'hard'"):
        soft_nms(torch.zeros(1, 4), torch.ones(1), iou_threshold=0.5, sigma=0.5, min_score=0.1, method="hard")
