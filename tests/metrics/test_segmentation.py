"""The segmentation metric against loops, mmseg, Detectron2's formulas, DAVIS's code and scikit-learn."""

import json
import math
import pickle

import numpy as np
import pytest
import torch
from helpers import run_ranks

from cvplugins.metrics import SegmentationMetric
from cvplugins.metrics.label_boundaries import count_boundary_regions, count_contours
from cvplugins.metrics.label_maps import confusion_matrix

CLASSES = ("sky", "sea", "boat", "bird", "never")  # the last one is never labelled
MEASURES = ("iou", "recall", "precision", "dice", "f_score")


def random_maps(seed, size=(13, 17), num_classes=4, block=3, ignored=0.1):
    """A label map of blocks and a prediction that is right at most pixels."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, num_classes, [-(-side // block) for side in size])
    label = np.kron(coarse, np.ones((block, block), int))[: size[0], : size[1]].astype(np.uint8)
    wrong = generator.random(size) < 0.3
    prediction = np.where(wrong, generator.integers(0, num_classes, size), label).astype(np.uint8)
    label[generator.random(size) < ignored] = 255
    return label, prediction


def evaluate(pairs, classes=CLASSES, **options):
    metric = SegmentationMetric(classes, **options)
    for index, (label, prediction) in enumerate(pairs):
        metric.update(index, label, prediction)
    return metric.compute()


def counts_by_loop(label, prediction, num_classes, ignore_index):
    table = np.zeros((num_classes, num_classes), np.int64)
    for true, found in zip(np.ravel(label).tolist(), np.ravel(prediction).tolist(), strict=True):
        if true != ignore_index:
            table[true, found] += 1
    return table


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, torch.uint8, torch.int32, torch.int64])
@pytest.mark.parametrize("block", [1, 12], ids=["noise", "objects"])
def test_confusion_matrix_equals_a_loop(dtype, block):
    for seed in range(5):
        label, prediction = random_maps(seed, (40, 50), block=block)
        expected = counts_by_loop(label, prediction, 5, 255)
        if isinstance(dtype, torch.dtype):
            label, prediction = (torch.from_numpy(each).to(dtype) for each in (label, prediction))
        else:
            label, prediction = (np.asfortranarray(each.astype(dtype)) for each in (label, prediction))
        found = confusion_matrix(label, prediction, 5)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("ignore_index", [255, 0, 3, -100, 1000, None])
@pytest.mark.parametrize("num_classes", [5, 255, 256, 257, 400])
@pytest.mark.parametrize("length", [1, 40], ids=["noise", "objects"])
def test_any_number_of_classes_and_any_ignored_label(num_classes, ignore_index, length):
    generator = np.random.default_rng(num_classes)
    label, prediction = np.repeat(generator.integers(0, num_classes, (2, 30, 40)), length, axis=2)
    if ignore_index is not None:
        label[np.repeat(generator.random((30, 40)) < 0.1, length, axis=1)] = ignore_index
    expected = counts_by_loop(label, prediction, num_classes, ignore_index)
    np.testing.assert_array_equal(confusion_matrix(label, prediction, num_classes, ignore_index), expected)
    tensors = torch.from_numpy(label), torch.from_numpy(prediction)
    np.testing.assert_array_equal(confusion_matrix(*tensors, num_classes, ignore_index), expected)


@pytest.mark.gpu
def test_counts_on_a_gpu_are_the_same():
    label, prediction = (torch.from_numpy(each).cuda() for each in random_maps(0, (300, 400)))
    expected = confusion_matrix(label.cpu(), prediction.cpu(), 5)
    np.testing.assert_array_equal(confusion_matrix(label, prediction, 5), expected)
    np.testing.assert_array_equal(confusion_matrix(label.cpu(), prediction.long(), 5), expected)


@pytest.mark.parametrize("size", [(0, 0), (1, 1), (1, 7), (0, 5)])
def test_tiny_images(size):
    for fill in (0, 255):
        label, prediction = np.full(size, fill, np.uint8), np.zeros(size, np.uint8)
        result = evaluate([(label, prediction)], boundary=True)
        assert result.confusion.sum() == (label == 0).sum()
        json.dumps(result.as_dict(), allow_nan=False)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("rule", ["mmseg", "detectron2", "ade20k"])
def test_measures_equal_their_definitions_by_loop(seed, rule):
    pairs = [random_maps(10 * seed + index) for index in range(3)]
    pairs[0][1][0, :3] = 4  # predicted, never labelled
    result = evaluate(pairs, rule=rule, beta=2.0)
    label = np.concatenate([each[0].reshape(-1) for each in pairs])
    prediction = np.concatenate([each[1].reshape(-1) for each in pairs])[label != 255]
    label = label[label != 255]
    for index in range(len(CLASSES)):
        true, found = label == index, prediction == index
        right, either = (true & found).sum(), (true | found).sum()
        expected = {
            "iou": (right, either),
            "recall": (right, true.sum()),
            "precision": (right, found.sum()),
            "dice": (2 * right, true.sum() + found.sum()),
            "f_score": (5 * right, 4 * true.sum() + found.sum()),
        }
        for name, (part, whole) in expected.items():
            value = getattr(result, name)[index]
            if whole == 0 or (rule == "detectron2" and not true.any()):
                assert value == 0 if rule == "ade20k" else np.isnan(value), name
            else:
                np.testing.assert_allclose(value, part / whole, rtol=1e-15, err_msg=name)
    np.testing.assert_allclose(result.pixel_accuracy, (label == prediction).mean(), rtol=1e-15)


def mmseg_measures(pairs, num_classes, beta=1):
    from mmseg.evaluation import IoUMetric

    areas = [
        IoUMetric.intersect_and_union(
            *(torch.from_numpy(each).long() for each in (prediction, label)), num_classes, 255
        )
        for label, prediction in pairs
    ]
    totals = [sum(each).double() for each in zip(*areas, strict=True)]  # mmseg would divide in float32
    return IoUMetric.total_area_to_metrics(*totals, ["mIoU", "mDice", "mFscore"], beta=beta)


@pytest.mark.openmmlab
@pytest.mark.parametrize("seed", range(10))
def test_rule_of_mmseg(seed):
    pytest.importorskip("mmseg")
    pairs = [random_maps(10 * seed + index) for index in range(3)]
    pairs[0][1][0, :3] = 4  # predicted, never labelled: IoU 0, counted in the mean
    classes = (*CLASSES, "neither")
    result, expected = evaluate(pairs, classes, beta=2.0), mmseg_measures(pairs, len(classes), beta=2)
    assert result.iou[4] == 0
    assert np.isnan(result.iou[5])
    np.testing.assert_allclose(result.pixel_accuracy, expected["aAcc"], rtol=1e-15)
    scalars = result.scalars()
    for name in ("IoU", "Acc", "Dice", "Precision", "Recall"):
        np.testing.assert_allclose(result.per_class()[name], expected[name], rtol=1e-15, err_msg=name)
        np.testing.assert_allclose(scalars[f"m{name}"], np.nanmean(expected[name]), rtol=1e-14, err_msg=name)
    defined = ~np.isnan(expected["Fscore"])
    # mmseg keeps the F-score in float32, and has no value where precision and recall are 0 or undefined.
    np.testing.assert_allclose(result.f_score[defined], expected["Fscore"][defined], rtol=1e-6)
    assert (np.nan_to_num(result.f_score[~defined]) == 0).all()


def detectron2_measures(pairs, num_classes):
    """The formulas of SemSegEvaluator.evaluate in detectron2/evaluation/sem_seg_evaluation.py, without its per cent."""
    conf_matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for label, prediction in pairs:
        label, prediction = label.astype(int), prediction.astype(int)
        label[label == 255] = num_classes
        conf_matrix += np.bincount(
            (num_classes + 1) * prediction.reshape(-1) + label.reshape(-1), minlength=conf_matrix.size
        ).reshape(conf_matrix.shape)
    acc = np.full(num_classes, np.nan)
    iou = np.full(num_classes, np.nan)
    tp = conf_matrix.diagonal()[:-1].astype(float)
    pos_gt = np.sum(conf_matrix[:-1, :-1], axis=0).astype(float)
    class_weights = pos_gt / np.sum(pos_gt)
    pos_pred = np.sum(conf_matrix[:-1, :-1], axis=1).astype(float)
    acc_valid = pos_gt > 0
    acc[acc_valid] = tp[acc_valid] / pos_gt[acc_valid]
    union = pos_gt + pos_pred - tp
    iou_valid = np.logical_and(acc_valid, union > 0)
    iou[iou_valid] = tp[iou_valid] / union[iou_valid]
    return {
        "IoU": iou,
        "Acc": acc,
        "mIoU": np.sum(iou[iou_valid]) / np.sum(iou_valid),
        "mAcc": np.sum(acc[acc_valid]) / np.sum(acc_valid),
        "fwIoU": np.sum(iou[iou_valid] * class_weights[iou_valid]),
        "aAcc": np.sum(tp) / np.sum(pos_gt),
    }


@pytest.mark.parametrize("seed", range(10))
def test_rule_of_detectron2(seed):
    pairs = [random_maps(10 * seed + index) for index in range(3)]
    pairs[0][1][0, :3] = 4  # predicted, never labelled: left out
    result, expected = evaluate(pairs, rule="detectron2"), detectron2_measures(pairs, len(CLASSES))
    assert np.isnan(result.iou[4])
    for name in ("IoU", "Acc"):
        np.testing.assert_allclose(result.per_class()[name], expected.pop(name), rtol=1e-15)
    for name, value in expected.items():
        np.testing.assert_allclose(result.scalars()[name], value, rtol=1e-14, err_msg=name)
    assert result.scalars()["mIoU"] > evaluate(pairs).scalars()["mIoU"]


@pytest.fixture
def detectron2_results(tmp_path):
    """What Detectron2's own evaluator says of pairs, as shares of 1."""
    pytest.importorskip("cv2")
    image = pytest.importorskip("PIL.Image")
    data = pytest.importorskip("detectron2.data")
    evaluation = pytest.importorskip("detectron2.evaluation")
    name = "cvplugins_test_segmentation"

    def run(pairs, classes):
        records = [
            dict(file_name=f"{index}", sem_seg_file_name=tmp_path / f"{index}.png") for index in range(len(pairs))
        ]
        data.DatasetCatalog.register(name, lambda: records)
        data.MetadataCatalog.get(name).set(stuff_classes=list(classes), ignore_label=255)
        evaluator = evaluation.SemSegEvaluator(name, distributed=False)
        evaluator.reset()
        for record, (label, prediction) in zip(records, pairs, strict=True):
            image.fromarray(label).save(record["sem_seg_file_name"])
            scores = torch.nn.functional.one_hot(torch.from_numpy(prediction).long(), len(classes)).permute(2, 0, 1)
            evaluator.process([record], [dict(sem_seg=scores)])
        return {key: value / 100 for key, value in evaluator.evaluate()["sem_seg"].items()}

    yield run
    if name in data.DatasetCatalog:
        data.DatasetCatalog.remove(name)
        data.MetadataCatalog.remove(name)


@pytest.mark.detectron2
def test_equals_the_evaluator_of_detectron2(detectron2_results):
    pairs = [random_maps(index) for index in range(3)]
    pairs[0][1][0, :3] = 4  # predicted, never labelled
    theirs, ours = detectron2_results(pairs, CLASSES), evaluate(pairs, rule="detectron2")
    names = {"mIoU": "mIoU", "fwIoU": "fwIoU", "mACC": "mAcc", "pACC": "aAcc"}
    for their_name, name in names.items():
        np.testing.assert_allclose(theirs[their_name], ours.scalars()[name], rtol=1e-14)
    for index, name in enumerate(CLASSES):
        np.testing.assert_allclose(theirs[f"IoU-{name}"], ours.iou[index], rtol=1e-14)
        np.testing.assert_allclose(theirs[f"ACC-{name}"], ours.recall[index], rtol=1e-14)


@pytest.mark.detectron2
def test_boundary_iou_of_detectron2_is_that_of_an_object_on_a_background(detectron2_results):
    """It erodes the map of class numbers, and subtracts: right for the object, and the numbers of others mix."""
    pairs = [random_maps(index, (60, 70), 2, block=20, ignored=0) for index in range(3)]
    theirs = detectron2_results(pairs, ("background", "object"))
    ours = evaluate(pairs, ("background", "object"), rule="detectron2", boundary=True)
    np.testing.assert_allclose(theirs["BoundaryIoU-object"], ours.boundary_iou[1], rtol=1e-14)
    assert theirs["BoundaryIoU-background"] != pytest.approx(ours.boundary_iou[0], rel=0.01)


def ade20k_measures(pairs, num_classes):
    """Mean IoU and pixel accuracy as the development kit computes them; its labels are 0 where nothing is labelled."""
    intersection, union = np.zeros(num_classes), np.zeros(num_classes)
    correct = labelled = 0
    for label, prediction in pairs:
        found = prediction * (label > 0)
        hit = found * (found == label)
        areas = [np.bincount(each.reshape(-1), minlength=num_classes + 1)[1:] for each in (hit, found, label)]
        intersection += areas[0]
        union += areas[1] + areas[2] - areas[0]
        correct += ((prediction == label) & (label > 0)).sum()
        labelled += (label > 0).sum()
    iou = intersection / (np.spacing(1) + union)
    return {"mIoU": iou.mean(), "aAcc": correct / labelled}


@pytest.mark.parametrize("seed", range(3))
def test_rule_of_ade20k(seed):
    """Labels from 1 and no ignored value there; from 0 and 255 here."""
    pairs = [random_maps(10 * seed + index) for index in range(3)]
    pairs[0][1][0, :3] = 4  # predicted, never labelled
    classes = (*CLASSES, "neither")
    expected = ade20k_measures([(label + np.uint8(1), prediction + 1) for label, prediction in pairs], len(classes))
    found = evaluate(pairs, classes, rule="ade20k", boundary=True)
    for name, value in expected.items():
        np.testing.assert_allclose(found.scalars()[name], value, rtol=1e-14)
    assert all(values[5] == 0 for values in found.per_class().values())
    means = [evaluate(pairs, classes, rule=rule).scalars()["mIoU"] for rule in ("ade20k", "mmseg", "detectron2")]
    assert means == sorted(means)
    every = [evaluate(pairs, (*CLASSES[:4], "never"), rule=rule).iou[:4].tolist() for rule in ("ade20k", "mmseg")]
    assert every[0] == every[1]


def test_equals_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    label, prediction = random_maps(0, (60, 70))
    result = evaluate([(label, prediction)], CLASSES[:4], beta=0.5)
    valid = label != 255
    label, prediction = label[valid], prediction[valid]
    np.testing.assert_array_equal(result.confusion, sklearn.confusion_matrix(label, prediction))
    np.testing.assert_allclose(result.kappa, sklearn.cohen_kappa_score(label, prediction), rtol=1e-13)
    precision, recall, f_score, _ = sklearn.precision_recall_fscore_support(label, prediction, beta=0.5)
    for ours, theirs in zip(
        (result.precision, result.recall, result.f_score), (precision, recall, f_score), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13)
    np.testing.assert_allclose(result.iou, sklearn.jaccard_score(label, prediction, average=None), rtol=1e-13)


def test_hand_calculation():
    """Six pixels, one ignored: two of three of a class right, one of two of the other."""
    label, prediction = np.array([[0, 0, 0, 1, 1, 255]]), np.array([[0, 0, 1, 1, 0, 7]])
    result = evaluate([(label, prediction)], ["a", "b"], beta=2.0)
    np.testing.assert_array_equal(result.confusion, [[2, 1], [1, 1]])
    np.testing.assert_allclose(result.iou, [2 / 4, 1 / 3])
    np.testing.assert_allclose(result.recall, [2 / 3, 1 / 2])
    np.testing.assert_allclose(result.precision, [2 / 3, 1 / 2])
    np.testing.assert_allclose(result.dice, [4 / 6, 2 / 4])
    np.testing.assert_allclose(result.pixel_accuracy, 3 / 5)
    np.testing.assert_allclose(result.frequency_weighted_iou, (3 * 1 / 2 + 2 * 1 / 3) / 5)
    by_chance = (3 * 3 + 2 * 2) / 25
    np.testing.assert_allclose(result.kappa, (3 / 5 - by_chance) / (1 - by_chance))
    assert set(result.scalars()) == {
        *("aAcc", "fwIoU", "kappa", "mIoU", "mAcc", "mDice", "mFscore", "mPrecision", "mRecall", "IoU/a", "IoU/b"),
    }


def test_nothing_to_measure():
    ignored = np.full((3, 4), 255, np.uint8), np.zeros((3, 4), np.uint8)
    for pairs in ([], [ignored]):
        result = evaluate(pairs, boundary=True)
        assert result.num_images == len(pairs)
        assert result.scalars() == {}
        json.dumps(result.as_dict(), allow_nan=False)


def test_one_class_alone_has_no_kappa_but_is_right():
    result = evaluate([(np.zeros((3, 4), int), np.zeros((3, 4), int))], ["all"])
    assert np.isnan(result.kappa)
    assert result.scalars()["mIoU"] == 1


def test_counts_beyond_float32():
    """2^24 + 1 pixels, where a sum in float32 stays at 2^24."""
    metric = SegmentationMetric(["a", "b"])
    one = metric.count(0, np.array([[0]]), np.array([[1]]))
    metric.state += one + 2**24 * metric.count(0, np.array([[0]]), np.array([[0]]))
    assert metric.compute().confusion.tolist() == [[2**24, 1], [0, 0]]
    assert metric.compute().recall[0] == 2**24 / (2**24 + 1)


# Real labels


@pytest.fixture(scope="module")
def real_pairs(real_ade20k):
    """Real label maps and predictions that are wrong in a known way: moved, and one class called another."""
    image = pytest.importorskip("PIL.Image")
    pairs = []
    for path in sorted((real_ade20k / "ADEChallengeData2016" / "annotations" / "validation").iterdir()):
        label = np.asarray(image.open(path)) - np.uint8(1)  # mmseg's reduce_zero_label: unlabelled pixels are 255
        prediction = np.roll(label, (5, -3), (0, 1))
        largest = np.bincount(label.reshape(-1), minlength=256)[:150].argmax()
        prediction[prediction == largest] = 149
        pairs.append((label, np.where(prediction == 255, 0, prediction)))
    return pairs


ADE20K = tuple(f"class {index}" for index in range(150))


def test_real_labels_equal_a_loop_over_classes(real_pairs):
    result = evaluate(real_pairs, ADE20K)
    label, prediction = (np.concatenate([pair[index].reshape(-1) for pair in real_pairs]) for index in (0, 1))
    assert (label == 255).any()
    prediction, label = prediction[label != 255], label[label != 255]
    both = {index: ((label == index) & (prediction == index)).sum() for index in range(150)}
    either = {index: ((label == index) | (prediction == index)).sum() for index in range(150)}
    expected = [both[index] / either[index] if either[index] else np.nan for index in range(150)]
    np.testing.assert_allclose(result.iou, expected, rtol=1e-15)
    assert 100 < np.isnan(expected).sum() < 150  # three images show few classes
    np.testing.assert_allclose(result.scalars()["mIoU"], np.nanmean(expected), rtol=1e-14)


@pytest.mark.openmmlab
def test_real_labels_equal_mmseg(real_pairs, real_ade20k):
    transforms = pytest.importorskip("mmseg.datasets.transforms")
    path = min((real_ade20k / "ADEChallengeData2016" / "annotations" / "validation").iterdir())
    loaded = dict(seg_map_path=str(path), reduce_zero_label=True, seg_fields=[])
    np.testing.assert_array_equal(transforms.LoadAnnotations()(loaded)["gt_seg_map"], real_pairs[0][0])
    result, expected = evaluate(real_pairs, ADE20K), mmseg_measures(real_pairs, 150)
    for name in ("IoU", "Acc", "Dice"):
        np.testing.assert_allclose(result.per_class()[name], expected[name], rtol=1e-15, err_msg=name)
    np.testing.assert_allclose(result.pixel_accuracy, expected["aAcc"], rtol=1e-15)


def test_real_labels_by_the_other_rules(real_pairs):
    found, expected = evaluate(real_pairs, ADE20K, rule="detectron2"), detectron2_measures(real_pairs, 150)
    assert found.scalars()["mIoU"] == pytest.approx(expected["mIoU"], rel=1e-14)
    shifted = [(label + np.uint8(1), prediction.astype(int) + 1) for label, prediction in real_pairs]
    found, expected = evaluate(real_pairs, ADE20K, rule="ade20k"), ade20k_measures(shifted, 150)
    assert found.scalars()["mIoU"] == pytest.approx(expected["mIoU"], rel=1e-14)


# Boundaries


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("ratio", [0.01, 0.06, 0.15, 2.0])
def test_boundary_regions_equal_a_loop(seed, ratio):
    label, prediction = random_maps(seed, (20, 26), 4, block=6, ignored=0)
    width = max(1, round(ratio * math.hypot(20, 26)))

    def near(mask):
        """The mask without what the square around a pixel erodes; nothing lies outside of the image."""
        padded = np.pad(mask, width)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * width + 1, 2 * width + 1))
        return mask & ~windows.all(axis=(2, 3))

    found = count_boundary_regions(label, prediction, 4, ratio)
    for index in range(4):
        true, predicted = near(label == index), near(prediction == index)
        assert found[:, index].tolist() == [(true & predicted).sum(), true.sum(), predicted.sum()]


@pytest.mark.parametrize("size", [(40, 60), (9, 200), (3, 3)])
def test_boundary_regions_equal_the_code_of_the_paper(size):
    """mask_to_boundary of bowenc0221/boundary-iou-api, per class."""
    cv2 = pytest.importorskip("cv2")

    def mask_to_boundary(mask, dilation_ratio):
        h, w = mask.shape
        dilation = max(1, round(dilation_ratio * np.sqrt(h**2 + w**2)))
        padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=dilation)
        return (mask - eroded[1 : h + 1, 1 : w + 1]).astype(bool)

    label, prediction = random_maps(1, size, 4, block=15, ignored=0)
    found = count_boundary_regions(label, prediction, 4)
    for index in range(4):
        true, predicted = (mask_to_boundary((each == index).astype(np.uint8), 0.02) for each in (label, prediction))
        assert found[:, index].tolist() == [(true & predicted).sum(), true.sum(), predicted.sum()]


def davis_counts(label, prediction, tolerance):
    """Boundary F of DAVIS, of one binary mask, with counts for its ratios.

    A contour pixel differs from its right, lower or lower right neighbour; what lies in the last row or column has
    no such neighbour below or to the right. One is matched within a disk of ``ceil(0.008 * diagonal)`` pixels.
    """

    def seg2bmap(seg):
        e, s, se = np.zeros_like(seg), np.zeros_like(seg), np.zeros_like(seg)
        e[:, :-1] = seg[:, 1:]
        s[:-1, :] = seg[1:, :]
        se[:-1, :-1] = seg[1:, 1:]
        b = seg ^ e | seg ^ s | seg ^ se
        b[-1, :] = seg[-1, :] ^ e[-1, :]
        b[:, -1] = seg[:, -1] ^ s[:, -1]
        b[-1, -1] = 0
        return b

    def dilated(mask):
        rows, columns = np.nonzero(mask)
        grid = np.indices(mask.shape)
        near = np.zeros_like(mask)
        for row, column in zip(rows, columns, strict=True):
            near |= (grid[0] - row) ** 2 + (grid[1] - column) ** 2 <= radius**2
        return near

    radius = tolerance if tolerance >= 1 else np.ceil(tolerance * np.linalg.norm(label.shape))
    true, found = seg2bmap(label), seg2bmap(prediction)
    return [(found & dilated(true)).sum(), found.sum(), (true & dilated(found)).sum(), true.sum()]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tolerance", [0.008, 0.1, 1, 2.5, 5])
def test_contours_equal_the_code_of_davis(seed, tolerance):
    label, _ = random_maps(seed, (24, 30), 4, block=8, ignored=0)
    prediction = np.roll(label, (seed % 3 + 1, seed % 4), (0, 1))
    prediction[5:8, 9:11] = 3
    found = count_contours(label, prediction, 4, tolerance)
    for index in range(4):
        assert found[:, index].tolist() == davis_counts(label == index, prediction == index, tolerance)


@pytest.mark.parametrize("cells", [1 << 26, 0], ids=["cells", "tree_alone"])
@pytest.mark.parametrize("tolerance", [1, 2.5, 6, 20])
def test_contours_near_each_other_equal_a_distance_transform(tolerance, cells, monkeypatch):
    """Regions that moved or went; scipy's Euclidean distances of each class are the oracle."""
    from scipy.ndimage import distance_transform_edt

    monkeypatch.setattr("cvplugins.metrics.label_boundaries.MOST_CELLS", cells)
    generator = np.random.default_rng(int(tolerance))
    label = np.kron(generator.integers(0, 5, (9, 12)), np.ones((13, 11), int))
    prediction = np.roll(label, (2, -3), (0, 1))
    prediction[30:70, 40:90] = generator.integers(0, 5, (40, 50))
    label[80:100, :30] = 255
    found = count_contours(label, prediction, 5, tolerance)
    for index in range(5):
        true, predicted = (contour_of(each == index) for each in (label, prediction))
        for row, (own, other) in enumerate(((predicted, true), (true, predicted))):
            near = own & (distance_transform_edt(~other) <= tolerance)
            assert found[2 * row : 2 * row + 2, index].tolist() == [near.sum(), own.sum()]


def contour_of(mask):
    """DAVIS's: the mask differs from its right, lower or lower right neighbour; the last ones are repeated."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    others = [padded[1:, :-1], padded[:-1, 1:], padded[1:, 1:]]
    return np.logical_or.reduce([mask != other for other in others])


@pytest.mark.parametrize("seed", range(4))
def test_boundary_f1_equals_trackeval_which_has_the_code_of_davis(seed):
    """F of one object; its rule for two empty contours, which score 1 there, is left out."""
    davis = pytest.importorskip("trackeval.metrics.j_and_f").JAndF
    pytest.importorskip("skimage")
    pytest.importorskip("cv2")
    encode = pytest.importorskip("pycocotools.mask").encode
    label, _ = random_maps(seed, (150, 190), 2, block=40, ignored=0)
    prediction = np.roll(label, (seed % 3 + 1, seed), (0, 1))
    prediction[20:30, 30:60] = 1
    masks = [[[encode(np.asfortranarray(each))]] for each in (label, prediction)]
    expected = davis._compute_f(*masks, 0, 0, 0.008)[0]
    assert 0.3 < expected < 1
    found = evaluate([(label, prediction)], ("background", "object"), boundary=True)
    np.testing.assert_allclose(found.boundary_f1[1], expected, rtol=1e-14)


def test_a_perfect_prediction_has_perfect_boundaries_whatever_stands_at_ignored_pixels():
    label, _ = random_maps(3, (50, 60), 4, block=10)
    prediction = np.where(label == 255, np.random.default_rng(0).integers(0, 4, label.shape), label)
    result = evaluate([(label, prediction)], boundary=True)
    for values in (result.boundary_iou, result.boundary_precision, result.boundary_recall, result.boundary_f1):
        np.testing.assert_array_equal(values, [1, 1, 1, 1, np.nan])


def test_boundaries_of_classes_that_only_one_map_has():
    label = np.repeat([[0, 0, 1, 1, 2, 2]], 6, axis=0)
    prediction = np.where(label == 2, 3, label)
    result = evaluate([(label, prediction)], boundary=True)
    np.testing.assert_array_equal(result.boundary_f1, [1, 1, 0, 0, np.nan])
    np.testing.assert_array_equal(result.boundary_iou, [1, 1, 0, 0, np.nan])
    np.testing.assert_array_equal(result.boundary_precision, [1, 1, np.nan, 0, np.nan])
    result = evaluate([(label, prediction)], boundary=True, rule="detectron2")
    np.testing.assert_array_equal(result.boundary_f1, [1, 1, 0, np.nan, np.nan])


# Split, merge, ranks


def test_merging_in_any_split_and_order_gives_the_same_bits():
    pairs = [random_maps(index, (10 + index % 3, 12)) for index in range(20)]
    expected = evaluate(pairs, boundary=True).as_dict()
    generator = np.random.default_rng(1)
    for parts in (1, 2, 3, 7):
        metrics = [SegmentationMetric(CLASSES, boundary=True) for _ in range(parts + 1)]  # the last one stays idle
        for place, index in enumerate(generator.permutation(len(pairs))):
            metrics[place % parts].update(int(index), *pairs[index])
        metrics = pickle.loads(pickle.dumps(metrics))  # as ranks exchange them
        whole = SegmentationMetric(CLASSES, boundary=True)
        for part in reversed(metrics):
            whole.merge(part)
        assert whole.compute().as_dict() == expected


def summed_over_ranks():
    from cvplugins.distributed import rank, sum_over_ranks

    metric = SegmentationMetric(CLASSES)
    if rank() == 0:  # the other one is idle
        for index in range(5):
            metric.update(index, *random_maps(index))
    sum_over_ranks(torch.from_numpy(metric.state))
    return metric.compute().as_dict()


@pytest.mark.distributed
def test_one_sum_over_ranks_is_all_the_exchange():
    expected = evaluate([random_maps(index) for index in range(5)]).as_dict()
    assert run_ranks(summed_over_ranks, 2) == [expected, expected]


# Errors


@pytest.mark.parametrize(
    ("label", "prediction", "message"),
    [
        ([[0, 1]], [[0]], r"image x: label \(1, 2\) and prediction \(1, 1\) differ in shape"),
        ([0, 1], [0, 1], r"image x: label has shape \(2,\), expected \(height, width\)"),
        ([[0, 5]], [[0, 0]], r"image x: label 5 is no class; there are 5, from 0 and ignore_index is 255"),
        ([[0, -1]], [[0, 0]], "image x: label -1 is no class"),
        ([[0, 256]], [[0, 0]], "image x: label 256 is no class"),
        ([[0, 1]], [[0, 5]], "image x: prediction 5 is no class; there are 5, from 0: was the model built"),
        ([[0, 1]], [[0, -1]], "image x: prediction -1 is no class"),
        ([[0, 1]], [[0, 255]], "image x: prediction 255 is no class"),
        ([[0, 1]], [[0.0, 1.0]], "image x: prediction holds .*float64, expected integers"),
    ],
)
@pytest.mark.parametrize("kind", [lambda array: array, torch.from_numpy], ids=["array", "tensor"])
def test_wrong_maps_are_named_with_their_image(label, prediction, message, kind):
    with pytest.raises(ValueError, match=message):
        SegmentationMetric(CLASSES).update("x", kind(np.array(label)), kind(np.array(prediction)))


def test_predictions_at_ignored_pixels_may_be_anything():
    assert evaluate([(np.array([[0, 255, 255]]), np.array([[0, 255, -7]]))]).scalars()["aAcc"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(classes=[]), "at least one"),
        (dict(rule="coco"), "rule is 'coco', expected one of 'mmseg', 'detectron2', 'ade20k'"),
        (dict(beta=0), "beta is 0, expected a positive number"),
        (dict(tolerance=-1), "tolerance is -1"),
        (dict(dilation_ratio=float("nan")), "dilation_ratio is nan"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SegmentationMetric(**{"classes": CLASSES, **options})


def test_metrics_of_different_options_do_not_merge():
    with pytest.raises(ValueError, match="different classes or options"):
        SegmentationMetric(CLASSES).merge(SegmentationMetric(CLASSES, rule="detectron2"))
