"""Confusion matrix, kinds of error and operating points against loops over images and detections."""

import numpy as np
import pytest
from detection_cases import CLASSES, evaluate, random_images

from cvplugins.metrics import ERRORS, ImageDetections

BOX, FAR = [10.0, 10.0, 30.0, 30.0], [60.0, 60.0, 80.0, 80.0]
SHIFTED = [10.0, 10.0, 30.0, 20.0]  # half of BOX


def iou(box, other, crowd=False):
    width = max(min(box[2], other[2]) - max(box[0], other[0]), 0.0)
    height = max(min(box[3], other[3]) - max(box[1], other[1]), 0.0)
    area, other_area = ((each[2] - each[0]) * (each[3] - each[1]) for each in (box, other))
    union = area if crowd else area + other_area - width * height
    return width * height / union if union > 0 else 0.0


def by_loops(images, score_threshold, threshold=0.5):
    """COCO's rule, then what TIDE and the confusion matrix say of the rest, one detection after the other."""
    classes = len(CLASSES)
    confusion = np.zeros((classes + 1, classes + 1), int)
    errors = {name: np.zeros(classes, int) for name in ERRORS}
    left_out = np.zeros(classes, int)
    for image in images:
        boxes, truths = image.boxes.astype(float), image.truth_boxes.astype(float)
        ignored = image.difficult | image.crowd
        overlaps = [[iou(b, t, c) for t, c in zip(truths, image.crowd, strict=True)] for b in boxes]
        order = [i for i in np.argsort(-image.scores, kind="stable") if image.scores[i] >= score_threshold]
        taken, wrong = set(), []
        for index in order:
            best, best_iou = None, threshold
            for other in [*np.flatnonzero(~ignored), *np.flatnonzero(ignored)]:
                if image.truth_labels[other] != image.labels[index]:
                    continue
                if other in taken and not image.crowd[other]:
                    continue
                if best is not None and not ignored[best] and ignored[other]:
                    break
                if overlaps[index][other] >= best_iou:
                    best, best_iou = other, overlaps[index][other]
            if best is None:
                wrong.append(index)
                continue
            taken.add(best)
            if ignored[best]:
                left_out[image.labels[index]] += 1
            else:
                confusion[image.labels[index], image.labels[index]] += 1
        missed = {other for other in np.flatnonzero(~ignored) if other not in taken}
        unexplained, unseen = set(missed), set(missed)
        for index in wrong:
            label = image.labels[index]
            near = [(overlaps[index][other], other) for other in range(len(truths))]
            own = [(v, o) for v, o in near if not ignored[o] and image.truth_labels[o] == label and v > 0.1]
            foreign = [(v, o) for v, o in near if not ignored[o] and image.truth_labels[o] != label and v > 0.1]
            on_ignored = any(v >= threshold and ignored[o] and image.truth_labels[o] != label for v, o in near)
            duplicate = any(v >= threshold for v, _ in own)
            if on_ignored and not any(v >= threshold for v, _ in own + foreign):
                left_out[label] += 1
                continue
            if own and not duplicate:
                kind = "localisation"
                unexplained.discard(max(own, key=lambda pair: pair[0])[1])
            elif any(v >= threshold for v, _ in foreign):
                kind = "classification"
                unexplained.discard(max(foreign, key=lambda pair: pair[0])[1])
            elif duplicate:
                kind = "duplicate"
            elif not own + foreign:
                kind = "background"
            else:
                kind = "classification_and_localisation"
            errors[kind][label] += 1
            candidates = [(v, o) for v, o in foreign if v >= threshold and o in unseen and kind != "duplicate"]
            if candidates:
                _, other = max(candidates)
                unseen.discard(other)
                confusion[image.truth_labels[other], label] += 1
            else:
                confusion[-1, label] += 1
        for other in unseen:
            confusion[image.truth_labels[other], -1] += 1
        for other in unexplained:
            errors["missed"][image.truth_labels[other]] += 1
    return confusion, errors, left_out


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("score_threshold", [0.0, 0.4])
def test_equals_a_loop(seed, score_threshold):
    images = random_images(seed, count=40, ties=seed % 3 == 0, whole_pixels=seed % 2 == 0, crowds=True)
    result = evaluate(images, rules=["coco"], score_threshold=score_threshold)
    confusion, errors, left_out = by_loops(images, score_threshold)
    np.testing.assert_array_equal(result.errors.confusion, confusion)
    np.testing.assert_array_equal(result.errors.counts, np.stack(list(errors.values())))
    np.testing.assert_array_equal(result.errors.left_out, left_out)


@pytest.mark.parametrize("rule", ["voc2012", "coco", "detectron2"])
def test_everything_is_counted_once(rule):
    images = random_images(5, count=60, ties=True, crowds=True)
    result = evaluate(images, rules=[rule], score_threshold=0.25)
    points, errors = result.operating_points, result.errors
    above = np.concatenate([each.labels[each.scores >= 0.25] for each in images])
    detected = np.bincount(above, minlength=4)
    np.testing.assert_array_equal(errors.confusion[:-1].sum(axis=1), result.num_truths)
    np.testing.assert_array_equal(errors.confusion[:, :-1].sum(axis=0) + errors.left_out, detected)
    np.testing.assert_array_equal(errors.confusion.diagonal()[:-1], points.true_positives)
    np.testing.assert_array_equal(points.true_positives + points.missed, result.num_truths)
    np.testing.assert_array_equal(points.true_positives + errors.counts[:-1].sum(axis=0) + errors.left_out, detected)
    assert (errors.counts[-1] <= points.missed).all()


@pytest.mark.parametrize(
    ("box", "label", "kind", "confused"),
    [
        (FAR, 0, "background", (4, 0)),
        ([10.0, 10.0, 30.0, 15.0], 0, "localisation", (4, 0)),
        (BOX, 1, "classification", (0, 1)),
        ([10.0, 10.0, 30.0, 15.0], 1, "classification_and_localisation", (4, 1)),
    ],
)
def test_each_kind_of_error(box, label, kind, confused):
    result = evaluate([ImageDetections(1, [box], [0.9], [label], [BOX], [0])], rules=["coco"])
    assert {name: values[label] for name, values in result.errors.per_class().items() if values[label]} == (
        {kind: 1} | ({"missed": 1} if kind == "background" else {})
    )
    assert result.errors.confusion[confused] == 1


def test_a_duplicate_is_a_false_positive():
    result = evaluate([ImageDetections(1, [BOX, BOX], [0.9, 0.8], [0, 0], [BOX], [0])], rules=["coco"])
    assert result.errors.per_class()["duplicate"][0] == 1
    assert result.errors.confusion[0].tolist() == [1, 0, 0, 0, 0]
    assert result.errors.confusion[-1].tolist() == [1, 0, 0, 0, 0]
    points = result.operating_points
    assert (points.precision[0], points.recall[0], points.f1[0]) == (0.5, 1.0, pytest.approx(2 / 3))
    assert points.false_positives_per_image[0] == 1


def test_difficult_objects_are_in_no_cell():
    boxes, labels = [BOX, BOX, FAR], [0, 1, 2]
    hard = ImageDetections(1, boxes, [0.9, 0.8, 0.7], labels, [BOX, FAR], [0, 2], difficult=[True, False])
    result = evaluate([hard], rules=["voc2012"])
    assert result.errors.confusion.sum() == result.errors.confusion[2, 2] == 1
    assert result.errors.counts.sum() == 0
    assert result.errors.left_out.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("rule", ["voc2012", "coco"])
def test_operating_points_equal_a_loop_over_thresholds(seed, rule):
    """The reference evaluates again with only the detections of at least each score."""
    images = random_images(seed, count=25, ties=seed % 2 == 0)
    points = evaluate(images, rules=[rule], score_threshold=0.5).operating_points
    for label in range(3):
        scores = sorted({float(s) for each in images for s in each.scores[each.labels == label]})
        counts = {score: counts_above(images, score, rule, label) for score in [0.5, *scores]}
        hits, false, missed = counts.pop(0.5) if 0.5 not in scores else counts[0.5]
        assert (points.true_positives[label], points.false_positives[label], points.missed[label]) == (
            hits,
            false,
            missed,
        )
        if hits + missed == 0:
            assert np.isnan(points.best_f1[label])
            continue
        f1 = {score: 2 * h / (2 * h + f + m) for score, (h, f, m) in counts.items()}
        assert points.best_f1[label] == pytest.approx(max(f1.values()), abs=1e-12)
        assert f1[points.best_score[label]] == pytest.approx(max(f1.values()), abs=1e-12)
        miss_rates = []
        for allowed in np.logspace(-2, 0, 9):
            fits = [m / (h + m) for h, f, m in counts.values() if f / len(images) <= allowed]
            miss_rates.append(min(fits, default=1.0))
        expected = 0 if 0 in miss_rates else np.exp(np.mean(np.log(miss_rates)))
        assert points.log_average_miss_rate[label] == pytest.approx(expected, abs=1e-12)


def counts_above(images, score, rule, label):
    points = evaluate(images, rules=[rule], score_threshold=score).operating_points
    return int(points.true_positives[label]), int(points.false_positives[label]), int(points.missed[label])


def test_an_overlap_of_a_tenth_is_background():
    tenth = [10.0, 10.0, 30.0, 12.0]
    image = ImageDetections("a", [tenth], [0.9], [0], [BOX], [0])
    assert evaluate([image], rules=["coco"]).errors.per_class()["background"].tolist() == [1, 0, 0, 0]


def test_a_class_without_detections_takes_no_hit_of_the_next():
    image = ImageDetections("a", [BOX], [0.9], [1], [FAR, BOX], [0, 1])
    points = evaluate([image], rules=["coco"]).operating_points
    assert points.true_positives.tolist() == [0, 1, 0, 0]
    assert points.missed.tolist() == [1, 0, 0, 0]


def test_a_class_is_not_confused_with_itself():
    """By VOC's rule a detection goes to the object it overlaps most, although another one is still to be found."""
    between, shorter, other = [10.0, 10.0, 30.0, 29.0], [10.0, 10.0, 30.0, 28.0], [10.0, 10.0, 30.0, 22.0]
    image = ImageDetections("a", [BOX, between], [0.9, 0.8], [0, 0], [BOX, shorter, other], [0, 0, 1])
    errors = evaluate([image], rules=["voc2012"]).errors
    assert errors.confusion[0].tolist() == [1, 0, 0, 0, 1]
    assert errors.confusion[1].tolist() == [1, 0, 0, 0, 0]


def test_nothing_found_and_nothing_there():
    nothing = evaluate([ImageDetections(1, [], [], [], [], [])])
    assert nothing.errors.confusion.sum() == 0
    assert "precision" not in nothing.scalars()
    assert np.isnan(nothing.operating_points.f1).all()
    missed = evaluate([ImageDetections(1, [], [], [], [BOX], [0])])
    assert missed.operating_points.best_recall[0] == 0
    assert missed.operating_points.log_average_miss_rate[0] == 1
    assert missed.scalars()["F1"] == 0
    false = evaluate([ImageDetections(1, [BOX], [0.9], [0], [], [])])
    assert false.operating_points.precision[0] == 0
    assert np.isnan(false.operating_points.recall[0])
    assert false.errors.confusion[-1, 0] == 1


# x1, y1, x2, y2, class of the ground truth, and then class and score of the detections.
TIDE_CASE = [
    (
        [[53, 16, 76, 45, 1], [15, 27, 42, 44, 1], [53, 7, 69, 25, 1], [57, 7, 75, 27, 0]],
        [
            [46, 9, 74, 31, 1, 0.21], [12, 29, 36, 40, 0, 0.41], [15, 24, 44, 50, 0, 0.36], [18, 22, 44, 43, 0, 0.51],
            [59, 11, 70, 41, 1, 0.31], [90, 90, 110, 110, 1, 0.61], [53, 7, 66, 28, 1, 0.11],
        ],
    ),
    (
        [[55, 16, 82, 48, 0], [11, 33, 57, 69, 1], [31, 26, 77, 75, 0], [35, 26, 83, 77, 0]],
        [
            [7, 33, 59, 67, 1, 0.46], [9, 40, 61, 67, 0, 0.86], [61, 16, 89, 46, 0, 0.31], [35, 30, 77, 73, 0, 0.21],
            [5, 29, 63, 68, 0, 0.41], [38, 31, 71, 75, 1, 0.26], [53, 19, 79, 50, 0, 0.66], [8, 29, 51, 69, 0, 0.71],
            [90, 90, 110, 110, 1, 0.51],
        ],
    ),
]  # fmt: skip


def test_equals_tidecv():
    """Recorded from tidecv 1.0.1: TIDERun(gt, preds, 0.5, 0.1, "bbox", 100), errors counted by their type."""
    images = []
    for number, (truths, found) in enumerate(TIDE_CASE):
        truths, found = np.array(truths, float), np.array(found)
        images.append(
            ImageDetections(number, found[:, :4], found[:, 5], found[:, 4], truths[:, :4], truths[:, 4].astype(int))
        )
    errors = evaluate(images, rules=["coco"], score_threshold=0.2).errors
    assert dict(zip(ERRORS, errors.counts.sum(axis=1).tolist(), strict=True)) == {
        "localisation": 6,
        "classification": 2,
        "duplicate": 1,
        "background": 2,
        "classification_and_localisation": 1,
        "missed": 2,  # of two objects that a wrong detection overlaps, only the nearer one is excused
    }
