"""Overlaps exactly on a threshold, in files: pycocotools is the oracle, which takes width and height as they are."""

import dataclasses
import itertools
import json
from collections import Counter

import numpy as np
import pytest
from decimal_cases import NAMES, decimal_content, defined, pycocotools_stats

from cvplugins.evaluation import evaluate_detections, read_detections, read_truths
from cvplugins.metrics import DETECTION_RULES, ImageDetections, detection_rule
from cvplugins.metrics.instances import BoxInstances

pytest.importorskip("pycocotools")


def evaluated(folder, content, results, **options):
    (folder / "annotations.json").write_text(json.dumps(content))
    (folder / "results.json").write_text(json.dumps(results))
    truths = read_truths(folder / "annotations.json")
    return evaluate_detections(read_detections(folder / "results.json", truths), truths, **options)


@pytest.mark.parametrize("seed", range(8))
def test_files_equal_pycocotools(tmp_path, seed):
    content, results = decimal_content(seed, ties=seed % 2 == 0)
    found = evaluated(tmp_path, content, results).first_rule
    expected = pycocotools_stats(content, results)
    assert {name: found.scalars()[name] for name in defined(expected.stats)} == pytest.approx(
        defined(expected.stats), abs=1e-12
    )
    precision = np.where(expected.eval["precision"] < 0, np.nan, expected.eval["precision"]).mean(axis=1)
    np.testing.assert_allclose(found.coco, precision[:, :, 0, 2], atol=1e-12)
    np.testing.assert_allclose(found.by_size, precision[:, :, 1:, 2].transpose(2, 0, 1), atol=1e-12)
    assert set(NAMES) >= set(defined(expected.stats)) > {"AP", "AP50", "AP_small"}


def test_more_detections_than_100_equal_pycocotools_with_mmdets_limits(tmp_path):
    """mmdet's ``CocoMetric`` sets ``maxDets`` to 100, 300 and 1,000; the summary takes the mean AP at 100."""
    content, results = decimal_content(3, num_images=3, copies=300, most_objects=12)
    assert max(Counter((each["image_id"], each["category_id"]) for each in results).values()) > 300
    expected = pycocotools_stats(content, results, (100, 300, 1000))
    names = (*NAMES[:6], "AR100", "AR300", "AR1000", *NAMES[9:])
    found = evaluated(tmp_path, content, results, rules=["coco_mmdet", "coco"])
    scalars = found.rules["coco_mmdet"].scalars()
    assert {name: scalars[name] for name in defined(expected.stats, names)} == pytest.approx(
        defined(expected.stats, names), abs=1e-12
    )
    other = found.rules["coco"].scalars()
    assert scalars["AP"] == pytest.approx(other["AP"], abs=1e-12)
    assert scalars["AP_medium"] != other["AP_medium"]
    precision = np.where(expected.eval["precision"] < 0, np.nan, expected.eval["precision"])
    per_class = precision[..., 0, -1].mean(axis=(0, 1))
    np.testing.assert_allclose(found.rules["coco_mmdet"].per_class()["AP"], per_class, atol=1e-12)


def test_overlaps_have_the_bits_of_pycocotools():
    """Halves of boxes of one decimal, of which widths that were made from corners lose many."""
    from pycocotools import mask

    tenths = np.arange(1, 300, 7) / 10
    boxes = np.array([(x, 5.0, width, 10.0) for x, width in itertools.product(tenths, tenths)])
    halves = boxes * [1, 1, 0.5, 1]
    number, rule = np.arange(len(boxes)), DETECTION_RULES["coco"]
    image = ImageDetections("a", corners(halves), np.ones(len(boxes)), number, corners(boxes), number)
    exact = dataclasses.replace(image, sizes=halves[:, 2:], truth_sizes=boxes[:, 2:])
    pairs = BoxInstances.of([exact]).pairs(rule, lambda iou: iou > 0, number, len(boxes))
    expected = [mask.iou(own[None], other[None], [0])[0, 0] for own, other in zip(halves, boxes, strict=True)]
    np.testing.assert_array_equal(pairs.detection, number)
    np.testing.assert_array_equal(pairs.iou, expected)
    by_corners = BoxInstances.of([image]).pairs(rule, rule.reached, number, len(boxes))
    assert len(by_corners.iou) < (np.array(expected) >= 0.5).sum()


def corners(xywh):
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def test_sizes_have_to_fit():
    box = [[0.0, 0, 9, 9]]
    with pytest.raises(ValueError, match=r"image a: sizes has shape \(1, 4\), expected \(1, 2\)"):
        ImageDetections("a", box, [0.5], [0], sizes=box, truth_boxes=[], truth_labels=[])
    with pytest.raises(ValueError, match="image a: truth_sizes holds a number that is not finite"):
        ImageDetections("a", [], [], [], truth_boxes=box, truth_labels=[0], truth_sizes=[[9.0, np.nan]])


def test_other_rules_go_by_the_corners():
    """PASCAL VOC's rules count the last pixel of integer corners; widths and heights do not reach them."""
    box, options = [[0.0, 0, 9, 9]], dict(sizes=[[90.0, 90]], truth_sizes=[[9.0, 9]])
    instances = BoxInstances.of([ImageDetections("a", box, [0.5], [0], box, [0], **options)])
    for rule, iou in (("voc2012", 1.0), ("detectron2", 1.0), ("coco", 0.01)):
        pairs = instances.pairs(detection_rule(rule), lambda iou: iou > 0, np.arange(1))
        assert pairs.iou[0] == pytest.approx(iou)
