"""The detection metric against mmdet, pycocotools and a loop, on random and on nasty input."""

import json
import pickle
import time
from itertools import pairwise

import numpy as np
import pytest
from detection_cases import CLASSES, evaluate, pycocotools_evaluation, random_images, voc_ap_by_loops

from cvplugins.metrics import DetectionMetric, DetectionRule, ImageDetections, RuleResult


def image(image_id="a", boxes=(), scores=(), labels=(), truth_boxes=(), truth_labels=(), difficult=None):
    return ImageDetections(image_id, boxes, scores, labels, truth_boxes, truth_labels, difficult)


def voc(result):
    return result.rules["voc2012"]


BOX = [10.0, 10.0, 29.0, 29.0]


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_voc_rule_equals_a_loop(seed, ties):
    images = random_images(seed, ties=ties, whole_pixels=seed % 2 == 0)
    result = evaluate(images)
    for label in range(len(CLASSES)):
        expected = voc_ap_by_loops(images, label)
        if expected is None:
            assert np.isnan(voc(result).area[0, label])
            assert np.isnan(voc(result).eleven_point[0, label])
        else:
            np.testing.assert_allclose(
                [voc(result).area[0, label], voc(result).eleven_point[0, label]], expected, atol=1e-12
            )


@pytest.mark.openmmlab
@pytest.mark.parametrize("seed", range(5))
def test_voc_rule_equals_mmdet(seed):
    images = random_images(seed, count=30)
    result = evaluate(images)
    for mode, ours in (("11points", voc(result).eleven_point[0]), ("area", voc(result).area[0])):
        mean, per_class = mmdet_eval_map(images, mode)
        theirs = np.array([each["ap"] if each["num_gts"] else np.nan for each in per_class])
        # mmdet keeps precision and AP in float32, hence the tolerance of its rounding.
        np.testing.assert_allclose(ours, theirs, atol=2e-7, rtol=0)
        np.testing.assert_allclose(np.nanmean(ours), mean, atol=2e-7, rtol=0)
        for curve, each in zip(result.curves, per_class, strict=True):
            if each["num_gts"]:
                np.testing.assert_array_equal(curve.recall, each["recall"])
                np.testing.assert_allclose(curve.precision, each["precision"], atol=1e-7, rtol=0)


def mmdet_eval_map(images, mode, num_classes=4):
    from mmdet.evaluation.functional import eval_map

    detections, annotations = [], []
    for each in images:
        rows = np.hstack([each.boxes, each.scores[:, None]])
        detections.append([rows[each.labels == label] for label in range(num_classes)])
        annotations.append(
            {
                "bboxes": each.truth_boxes[~each.difficult],
                "labels": each.truth_labels[~each.difficult],
                "bboxes_ignore": each.truth_boxes[each.difficult],
                "labels_ignore": each.truth_labels[each.difficult],
            }
        )
    return eval_map(
        detections,
        annotations,
        eval_mode=mode,
        use_legacy_coordinate=True,
        logger="silent",
        nproc=1,
    )


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_coco_rule_equals_pycocotools(seed, ties):
    pytest.importorskip("pycocotools")
    images = random_images(seed, ties=ties, whole_pixels=seed % 2 == 0)
    assert_equals_pycocotools(evaluate(images), images)


@pytest.mark.parametrize("seed", range(20))
def test_sizes_and_crowds_equal_pycocotools(seed):
    pytest.importorskip("pycocotools")
    images = random_images(seed, count=30, ties=seed % 3 == 0, whole_pixels=seed % 2 == 0, crowds=True, scale=1.5)
    assert sum(each.crowd.sum() for each in images) > 5
    assert_equals_pycocotools(evaluate(images), images)


def assert_equals_pycocotools(result, images):
    """Every number of every class, threshold, size and limit, within the last bits of float64.

    pycocotools divides by the detections plus 2e-16, so that its precision after a first hit is 1 - 2e-16.
    """
    expected = pycocotools_evaluation(images, len(result.classes))
    ours = result.rules["coco"]
    precision = np.where(expected["precision"] < 0, np.nan, expected["precision"]).mean(axis=1)  # (T, C, size, limit)
    recall = np.where(expected["recall"] < 0, np.nan, expected["recall"])
    close = {"atol": 1e-14, "rtol": 0}
    np.testing.assert_allclose(ours.coco, precision[:, :, 0, 2], **close)
    np.testing.assert_allclose(ours.by_size, precision[:, :, 1:, 2].transpose(2, 0, 1), **close)
    np.testing.assert_allclose(ours.recall, recall[:, :, 0, :].transpose(2, 0, 1), **close)
    np.testing.assert_allclose(ours.recall_by_size, recall[:, :, 1:, 2].transpose(2, 0, 1), **close)
    means = {
        "AP": precision[:, :, 0, 2], "AP50": precision[0, :, 0, 2], "AP75": precision[5, :, 0, 2],
        **{f"AP_{size}": precision[:, :, row + 1, 2] for row, size in enumerate(("small", "medium", "large"))},
        **{f"AR{limit}": recall[:, :, 0, row] for row, limit in enumerate((1, 10, 100))},
        **{f"AR_{size}": recall[:, :, row + 1, 2] for row, size in enumerate(("small", "medium", "large"))},
    }  # fmt: skip
    means = {name: np.nanmean(values) for name, values in means.items() if not np.isnan(values).all()}
    assert ours.scalars() == pytest.approx(means, abs=1e-14)


def test_coco_rule_counts_at_most_100_detections_an_image():
    pytest.importorskip("pycocotools")
    generator = np.random.default_rng(0)
    boxes = np.tile(BOX, (300, 1)) + generator.normal(0, 2, (300, 4))
    images = [image(1, boxes, generator.permutation(300) / 300, np.zeros(300), [BOX, [40, 40, 60, 60]], [0, 0])]
    assert_equals_pycocotools(evaluate(images), images)


def test_real_detections_on_real_photographs(real_voc):
    """Real boxes and scores; mmdet and pycocotools are the oracles."""
    pytest.importorskip("mmdet")
    pytest.importorskip("pycocotools")
    from real_photographs import CLASSES as VOC_CLASSES
    from real_photographs import real_images

    images = real_images(real_voc)
    assert len(images) == 80
    result = evaluate(images, VOC_CLASSES)
    for mode, ours in (("11points", voc(result).eleven_point[0]), ("area", voc(result).area[0])):
        mean, _ = mmdet_eval_map(images, mode, num_classes=20)
        np.testing.assert_allclose(np.nanmean(ours), mean, atol=2e-7, rtol=0)
    numbered = [replace_id(each, index) for index, each in enumerate(images)]
    assert_equals_pycocotools(evaluate(numbered, VOC_CLASSES), numbered)


def replace_id(each, image_id):
    import dataclasses

    return dataclasses.replace(each, image_id=image_id)


def test_hand_calculation():
    """One object found, one missed, a duplicate and a false alarm."""
    result = evaluate(
        [
            image(1, [BOX, BOX, [50, 50, 60, 60]], [0.9, 0.8, 0.95], [0, 0, 0], [BOX, [80, 80, 99, 99]], [0, 0]),
            image(2),
        ]
    )
    # In order: miss, hit, duplicate. Precision 1/2 at recall 1/2, which 6 of 11 and 51 of 101 points reach.
    np.testing.assert_allclose(voc(result).area[0, 0], 0.25)
    np.testing.assert_allclose(voc(result).eleven_point[0, 0], 0.5 * 6 / 11)
    np.testing.assert_allclose(result.rules["coco"].coco[:, 0], 0.5 * 51 / 101)
    # Of one detection an image the best is the false alarm.
    np.testing.assert_allclose(result.rules["coco"].recall.mean(axis=1)[:, 0], [0.0, 0.5, 0.5])
    assert result.num_images == 2
    assert result.num_truths.tolist() == [2, 0, 0, 0]
    assert result.num_detections.tolist() == [3, 0, 0, 0]
    np.testing.assert_allclose(result.curves[0].precision, [0, 1 / 2, 1 / 3])
    np.testing.assert_allclose(result.curves[0].recall, [0, 1 / 2, 1 / 2])


def test_difficult_objects_neither_help_nor_hurt():
    easy = evaluate([image(1, [BOX], [0.9], [0], [BOX], [0])])
    other = [50.0, 50.0, 80.0, 80.0]
    missed = evaluate([image(1, [BOX], [0.9], [0], [BOX, other], [0, 0], [False, True])])
    found = evaluate([image(1, [BOX, other, other], [0.9, 0.95, 0.94], [0, 0, 0], [BOX, other], [0, 0], [False, True])])
    assert easy.scalars() == missed.scalars()
    assert found.scalars()["AP50"] == 1
    # COCO lets a single detection vanish in an ignored object that is no crowd; the second one is false.
    assert found.rules["coco"].coco[0, 0] == pytest.approx(0.5)
    all_difficult = evaluate([image(1, [BOX], [0.9], [0], [BOX], [0], [True])])
    assert all_difficult.scalars() == {}


def test_merging_in_any_split_and_order_gives_the_same_bits():
    images = random_images(7, count=40, ties=True)
    expected = evaluate(images)
    generator = np.random.default_rng(1)
    for parts in (1, 2, 3, 7):
        shuffled = [images[index] for index in generator.permutation(len(images))]
        metrics = [DetectionMetric(CLASSES) for _ in range(parts + 1)]  # the last one stays idle
        for index, each in enumerate(shuffled):
            metrics[index % parts].update(each)
        metrics = pickle.loads(pickle.dumps(metrics))  # as ranks exchange them
        whole = DetectionMetric(CLASSES)
        for part in reversed(metrics):
            whole.merge(part)
        assert whole.compute().as_dict() == expected.as_dict()


def test_names_and_numbers_sort_together():
    evaluate([image("b"), image(2), image("a"), image(1, [BOX], [1], [0], [BOX], [0])])


@pytest.mark.parametrize(
    ("images", "scalars"),
    [
        ([], {}),
        ([image(1)], {}),
        ([image(1, [BOX], [0.5], [0])], {}),
        ([image(1, truth_boxes=[BOX], truth_labels=[0])], {"AP50": 0.0, "AR100": 0.0, "AP50/cat": 0.0}),
        ([image(1, [BOX], [0.5], [1], [BOX], [0])], {"AP50": 0.0, "AP50/cat": 0.0}),
        ([image(1, [[29, 29, 10, 10]], [0.5], [0], [BOX], [0])], {"AP50": 0.0, "AP": 0.0}),  # inside out
        ([image(1, [BOX], [0.5], [0], [[29, 29, 10, 10]], [0])], {"AP50": 0.0, "AP": 0.0}),
        ([image(1, [[5, 5, 5, 5]], [0.5], [0], [[5, 5, 5, 5]], [0])], {"AP50": 1.0, "AP": 0.0}),  # one pixel
        ([image(1, [BOX], [-3.0], [0], [BOX], [0])], {"AP50": 1.0, "AP": 1.0}),
    ],
    ids=[
        "no_image",
        "nothing",
        "no_truth",
        "no_detection",
        "wrong_class",
        "inverted",
        "inverted_truth",
        "pixel",
        "neg",
    ],
)
def test_nasty_input(images, scalars):
    result = evaluate(images)
    found = result.scalars()
    assert {name: found[name] for name in scalars} == scalars
    assert scalars or found == {}
    assert not any(np.isnan(value) for value in found.values())
    json.dumps(result.as_dict(), allow_nan=False)


def test_overlap_and_threshold_are_compared_in_float32():
    """70 of 100 pixels: 0.7 in float32 is below 0.7 in float64, but mmdet with NumPy 2 compares both in float32."""
    boxes, truths = np.array([[0, 0, 9, 9]], np.float32), np.array([[0, 0, 6, 9]], np.float32)
    rule = {"base": "voc2012", "iou_thresholds": (0.5, 0.7)}
    metric = DetectionMetric(["a"], rules=[rule])
    metric.update(ImageDetections("a", boxes, [0.5], [0], truths, [0]))
    assert metric.compute().first_rule.area.tolist() == [[1.0], [1.0]]


def test_box_with_swapped_ends_is_outside_of_cocos_sizes():
    """As in pycocotools, whose areas from 0 on leave out a negative one; PASCAL VOC counts a false positive."""
    swapped = image(boxes=[[30, 10, 10, 30], [0, 0, 9, 9]], scores=[0.9, 0.8], labels=[0, 0],
                    truth_boxes=[[0, 0, 9, 9]], truth_labels=[0])  # fmt: skip
    rules = evaluate([swapped], rules=["coco", "voc2012"]).rules
    assert rules["coco"].coco[0, 0] == 1
    assert rules["voc2012"].area[0, 0] == 0.5
    pytest.importorskip("pycocotools")
    assert_equals_pycocotools(evaluate([swapped]), [swapped])


def test_average_precision_alone_is_the_same():
    images = random_images(3, count=10)
    metric = DetectionMetric(CLASSES)
    for each in images:
        metric.update(each)
    for name, result in metric.compute().rules.items():
        alone = metric.average_precision()[name]
        np.testing.assert_array_equal(alone.average_precision, result.average_precision)
        np.testing.assert_array_equal(alone.recall, result.recall)


def test_ten_thousand_detections_in_an_image():
    generator = np.random.default_rng(0)
    corner = generator.uniform(0, 900, (10_000, 2))
    boxes = np.concatenate([corner, corner + generator.uniform(5, 90, (10_000, 2))], axis=1)
    truths = boxes[:500]
    crowded = image(1, boxes, generator.random(10_000), np.zeros(10_000), truths, np.zeros(500))
    expected = voc_ap_by_loops_fast(crowded)
    assert voc(evaluate([crowded])).area[0, 0] == pytest.approx(expected, abs=1e-12)


def voc_ap_by_loops_fast(each):
    """The best ground truth of every detection from the full IoU matrix in float32, then the loop over scores."""
    from torchvision.ops import box_iou

    torch = pytest.importorskip("torch")
    grown = [
        torch.tensor(boxes, dtype=torch.float64) + torch.tensor([0, 0, 1, 1])
        for boxes in (each.boxes, each.truth_boxes)
    ]
    overlaps, best = (value.numpy() for value in box_iou(*grown).max(dim=1))
    taken, curve, hits = set(), [], 0
    for count, index in enumerate(np.argsort(-each.scores), start=1):
        if overlaps[index] >= 0.5 and best[index] not in taken:
            taken.add(best[index])
            hits += 1
        curve.append((hits / len(each.truth_labels), hits / count))
    highest = np.maximum.accumulate([p for _, p in curve][::-1])[::-1]
    recalls = [0.0] + [r for r, _ in curve]
    return sum((r - before) * p for (before, r), p in zip(pairwise(recalls), highest, strict=True))


def test_pairs_in_small_portions_are_the_same(monkeypatch):
    images = random_images(3, count=30)
    expected = evaluate(images).as_dict()
    monkeypatch.setattr("cvplugins.metrics.matching.PAIRS_AT_ONCE", 3)
    assert evaluate(images).as_dict() == expected


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_any_number_type_is_taken(dtype):
    assert (
        voc(evaluate([image(1, np.array([BOX], dtype), np.ones(1, dtype), [0], np.array([BOX], dtype), [0])])).area[
            0, 0
        ]
        == 1
    )


def test_arrays_need_not_be_contiguous():
    boxes = np.asfortranarray(np.array([BOX, BOX]))[::-1]
    assert voc(evaluate([image(1, boxes, np.ones(4)[::2], np.zeros(4, int)[::2], [BOX], [0])])).area[0, 0] == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(boxes=[BOX], scores=[1, 1], labels=[0]), r"image x: scores has shape \(2,\), expected \(1,\)"),
        (dict(boxes=[[1, 2, 3]], scores=[1], labels=[0]), r"image x: boxes has shape \(1, 3\), expected \(1, 4\)"),
        (dict(boxes=[BOX], scores=[np.nan], labels=[0]), "image x: scores holds a number that is not finite"),
        (dict(boxes=[[0, 0, np.inf, 1]], scores=[1], labels=[0]), "image x: boxes holds a number that is not finite"),
        (dict(boxes=[BOX], scores=[1], labels=[4]), "image x: labels holds 4; there are 4 classes, from 0"),
        (dict(truth_boxes=[BOX], truth_labels=[-1]), "image x: truth_labels holds -1; there are 4 classes"),
        (dict(truth_boxes=[BOX], truth_labels=[0], difficult=[0, 1]), r"image x: difficult has shape \(2,\)"),
    ],
)
def test_wrong_input_is_named_with_its_image(wrong, message):
    with pytest.raises(ValueError, match=message):
        evaluate([image("x", **wrong)])


def test_an_image_counts_once():
    with pytest.raises(ValueError, match="image 1 was added twice"):
        evaluate([image(1), image(1)])
    part = DetectionMetric(CLASSES)
    part.update(image(1))
    with pytest.raises(ValueError, match="image 1 was added twice"):
        part.merge(part)


def test_metrics_of_different_classes_do_not_merge():
    with pytest.raises(ValueError, match="different classes"):
        DetectionMetric(["a"]).merge(DetectionMetric(["b"]))
    with pytest.raises(ValueError, match="at least one"):
        DetectionMetric([])


@pytest.mark.parametrize("crowds", [False, True], ids=["objects", "crowds"])
@pytest.mark.parametrize("moved", [0, 3e4], ids=["near", "far"])
def test_a_grid_in_crowded_images_changes_nothing(monkeypatch, crowds, moved):
    """All pairs are the oracle: sizes from specks to half of the image, far from 0 in float32, low and high IoU."""
    generator = np.random.default_rng(int(moved))
    sides = np.exp(generator.uniform(0, 6, (150, 2)))
    corner = generator.uniform(0, 800, (150, 2))
    truths = np.concatenate([corner, corner + sides], axis=1)
    boxes = np.repeat(truths, 10, axis=0) * (1 + generator.normal(0, 0.02, (1500, 4)))
    crowded = ImageDetections(
        1,
        (boxes + moved).astype(np.float32),
        generator.integers(0, 50, 1500) / 50,
        generator.integers(0, 2, 1500),
        (truths + moved).astype(np.float32),
        generator.integers(0, 2, 150),
        crowd=generator.random(150) < 0.2 if crowds else None,
    )
    rules = [
        *("voc2007", "coco_mmdet", "detectron2"),
        DetectionRule("low", "overlaps_most", iou_thresholds=(0.05, 0.3)),
        DetectionRule("equal", iou_thresholds=(1.0,)),
    ]
    expected = evaluate([crowded], CLASSES, rules=rules).as_dict()
    monkeypatch.setattr("cvplugins.metrics.crowded_images.MANY_PAIRS", 1)
    assert evaluate([crowded], CLASSES, rules=rules).as_dict() == expected
    assert expected["mean"]["AP50"] > 0.02


def test_time_of_a_crowded_image_grows_with_its_detections_and_objects():
    """Eight times as many of both take far less than 64 times as long, which all pairs would."""
    seconds = []
    for times in (1, 8):
        generator = np.random.default_rng(0)
        corner = generator.uniform(0, 1000 * times**0.5, (5_000 * times, 2))
        boxes = np.concatenate([corner, corner + generator.uniform(5, 60, corner.shape)], axis=1).astype(np.float32)
        scores, labels = generator.random(len(boxes)), np.zeros(len(boxes), int)
        crowded = image(1, boxes, scores, labels, boxes[: 500 * times] + np.float32(1), labels[: 500 * times])
        start = time.process_time()
        evaluate([crowded], ["cat"], rules=["voc2007"])
        seconds.append(time.process_time() - start)
    assert seconds[1] < 32 * seconds[0]


def test_plain_data_of_many_classes_computes_each_number_once(monkeypatch):
    """The calls do not grow with the classes, as a formula that looked at one class at a time would make them."""
    calls = []
    per_class = RuleResult.per_class
    monkeypatch.setattr(RuleResult, "per_class", lambda result: calls.append(result) or per_class(result))
    counts = []
    for number in (2, 60):
        names = [f"class {index}" for index in range(number)]
        result = evaluate([image(1, [[0, 0, 9, 9]], [0.9], [1], [[0, 0, 9, 9]], [1])], names, rules=["coco"])
        calls.clear()
        assert result.as_dict()["per_class"]["class 1"]["coco"]["AP50"] == 1
        counts.append(len(calls))
    assert counts[0] == counts[1]
