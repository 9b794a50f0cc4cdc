"""Masks against pycocotools and against boxes of the same shape."""

from dataclasses import replace

import numpy as np
import pytest
from detection_cases import CLASSES, evaluate, random_images

from cvplugins.metrics import DetectionRule, ImageMasks, InstanceSegmentationMetric

coding = pytest.importorskip("pycocotools.mask")


def random_masks(generator, image_id, size=(60, 70)):
    """Ellipses, and detections that are theirs, moved and dented."""
    count = generator.integers(0, 5)
    rows, columns = np.mgrid[: size[0], : size[1]]

    def ellipses(centre, radius):
        rows_off, columns_off = (rows - centre[:, 0, None, None]), (columns - centre[:, 1, None, None])
        return (rows_off / radius[:, 0, None, None]) ** 2 + (columns_off / radius[:, 1, None, None]) ** 2 <= 1

    centre, radius = generator.uniform(5, 55, (count, 2)), generator.uniform(2, 20, (count, 2))
    truths, truth_labels = ellipses(centre, radius), generator.integers(0, 3, count)
    copy = generator.integers(0, 3, count)
    moved = np.repeat(centre, copy, axis=0) + generator.normal(0, 2, (copy.sum(), 2))
    found = ellipses(moved, np.repeat(radius, copy, axis=0) * generator.uniform(0.7, 1.3, (copy.sum(), 2)))
    labels = np.repeat(truth_labels, copy)
    labels = np.where(generator.random(len(labels)) < 0.2, generator.integers(0, 4, len(labels)), labels)
    return {
        "image_id": image_id,
        "masks": found,
        "scores": generator.integers(1, 50, len(labels)) / 50,
        "labels": labels,
        "truth_masks": truths,
        "truth_labels": truth_labels,
        "crowd": generator.random(count) < 0.2,
        "truth_areas": generator.choice([500.0, 1024.0, 5000.0, 2e4], count),
    }


def evaluate_masks(images, **options):
    metric = InstanceSegmentationMetric(CLASSES, **options)
    for each in images:
        metric.update(ImageMasks.from_masks(**each))
    return metric.compute()


@pytest.mark.parametrize("seed", range(10))
def test_equals_pycocotools(seed):
    generator = np.random.default_rng(seed)
    images = [random_masks(generator, index) for index in range(25)]
    ours = evaluate_masks(images).rules["coco"]
    expected = pycocotools_evaluation(images)
    precision = np.where(expected["precision"] < 0, np.nan, expected["precision"]).mean(axis=1)
    recall = np.where(expected["recall"] < 0, np.nan, expected["recall"])
    close = {"atol": 1e-14, "rtol": 0}
    np.testing.assert_allclose(ours.coco, precision[:, :, 0, 2], **close)
    np.testing.assert_allclose(ours.by_size, precision[:, :, 1:, 2].transpose(2, 0, 1), **close)
    np.testing.assert_allclose(ours.recall, recall[:, :, 0, :].transpose(2, 0, 1), **close)
    np.testing.assert_allclose(ours.recall_by_size, recall[:, :, 1:, 2].transpose(2, 0, 1), **close)


def pycocotools_evaluation(images):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def encode(mask):
        return coding.encode(np.asfortranarray(mask, np.uint8))

    annotations, detections = [], []
    for each in images:
        columns = (each["truth_masks"], each["truth_labels"], each["crowd"], each["truth_areas"])
        for mask, label, crowd, area in zip(*columns, strict=True):
            entry = {"id": len(annotations) + 1, "image_id": each["image_id"], "category_id": int(label)}
            entry |= {"segmentation": encode(mask), "area": area, "iscrowd": int(crowd)}
            annotations.append(entry)
        for mask, label, score in zip(each["masks"], each["labels"], each["scores"], strict=True):
            entry = {"image_id": each["image_id"], "category_id": int(label), "score": score}
            detections.append(entry | {"segmentation": encode(mask)})
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": each["image_id"], "height": 60, "width": 70} for each in images],
        "annotations": annotations,
        "categories": [{"id": label} for label in range(len(CLASSES))],
    }
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(detections), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval


def test_rectangles_are_boxes():
    """Masks of whole pixels overlap as their boxes do, so that every number must be the same."""
    images = random_images(3, count=25, whole_pixels=True, crowds=True)
    # A mask has no negative area, by which COCO's rule leaves out a box with swapped ends.
    starts = [each.boxes[:, :2] for each in images]
    images = [
        replace(each, boxes=np.hstack([start, np.maximum(start, each.boxes[:, 2:])]))
        for each, start in zip(images, starts, strict=True)
    ]
    boxes = evaluate(images, rules=["coco"], score_threshold=0.3)

    def painted(corners):
        planes = np.zeros((len(corners), 260, 260), bool)
        for plane, (left, top, right, bottom) in zip(planes, corners.astype(int) + 60, strict=True):
            plane[top:bottom, left:right] = True
        return planes

    masks = [
        {
            "image_id": each.image_id,
            "masks": painted(each.boxes),
            "scores": each.scores,
            "labels": each.labels,
            "truth_masks": painted(each.truth_boxes),
            "truth_labels": each.truth_labels,
            "difficult": each.difficult,
            "crowd": each.crowd,
            "truth_areas": each.truth_areas,
        }
        for each in images
    ]
    result = evaluate_masks(masks, score_threshold=0.3)
    assert result.scalars() == pytest.approx(boxes.scalars(), abs=1e-12)
    np.testing.assert_array_equal(result.errors.confusion, boxes.errors.confusion)
    np.testing.assert_array_equal(result.errors.counts, boxes.errors.counts)


def test_mean_iou_of_matched_pairs():
    truth = np.zeros((1, 10, 10), bool)
    truth[0, :, :8] = True
    found = np.zeros((2, 10, 10), bool)
    found[0, :, :6] = True  # 60 of 80 pixels
    found[1, :, 9:] = True
    result = evaluate_masks([dict(image_id=1, masks=found, scores=[0.9, 0.8], labels=[0, 0], truth_masks=truth,
                                  truth_labels=[0])])  # fmt: skip
    assert result.scalars()["matched_IoU"] == 0.75
    assert result.operating_points.false_positives.tolist() == [1, 0, 0, 0]


def test_run_lengths_are_masks():
    each = random_masks(np.random.default_rng(2), 1)
    coded = {**each, "masks": [coding.encode(np.asfortranarray(mask, np.uint8)) for mask in each["masks"]]}
    runs = [{"size": [60, 70], "counts": uncompressed(mask)} for mask in each["truth_masks"]]
    expected = evaluate_masks([each]).as_dict()
    assert evaluate_masks([coded]).as_dict() == expected
    assert evaluate_masks([{**each, "truth_masks": runs}]).as_dict() == expected


def uncompressed(mask):
    flat = np.append(mask.ravel(order="F"), not mask.ravel(order="F")[-1])
    ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.append(0, ends)).tolist()
    return [0, *runs] if flat[0] else runs


def test_any_split_gives_the_same_bits():
    generator = np.random.default_rng(4)
    images = [ImageMasks.from_masks(**random_masks(generator, index)) for index in range(20)]
    whole, parts = InstanceSegmentationMetric(CLASSES), [InstanceSegmentationMetric(CLASSES) for _ in range(4)]
    for index in generator.permutation(20):
        whole.update(images[index])
        parts[index % 3].update(images[index])
    merged = parts[3]  # was idle
    for part in parts[:3]:
        merged.merge(part)
    assert merged.compute().as_dict() == whole.compute().as_dict()


def test_wrong_masks_are_named():
    square = np.ones((1, 4, 4), bool)
    with pytest.raises(ValueError, match="image x: masks holds 1, expected 2"):
        ImageMasks.from_masks("x", square, [1, 1], [0, 0], square, [0])
    with pytest.raises(ValueError, match="image x: masks have different sizes"):
        ImageMasks.from_masks("x", square, [1], [0], np.ones((1, 5, 5)), [0])
    with pytest.raises(ValueError, match=r"image x: masks have shape \(4, 4\)"):
        ImageMasks.from_masks("x", square[0], [1], [0], square, [0])
    with pytest.raises(ValueError, match="image x: scores holds a number that is not finite"):
        ImageMasks.from_masks("x", square, [np.nan], [0], square, [0])
    with pytest.raises(ValueError, match=r"IoU thresholds above 0\.1"):
        InstanceSegmentationMetric(["a"], [DetectionRule("low", iou_thresholds=(0.05,))])


def test_nothing_there():
    nothing = np.zeros((0, 4, 4), bool)
    result = evaluate_masks([dict(image_id=1, masks=nothing, scores=[], labels=[], truth_masks=[], truth_labels=[])])
    assert result.scalars() == {}
