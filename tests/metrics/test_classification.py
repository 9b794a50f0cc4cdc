"""The classification metric against loops in float64, scikit-learn and torchmetrics, and on nasty input."""

import json
import math
import pickle
from itertools import chain

import numpy as np
import pytest
from helpers import run_ranks

from cvplugins.distributed import gather_objects, rank
from cvplugins.metrics import ClassificationMetric, ClassificationState

CLASSES = ["cat", "dog", "owl", "eel", "unseen"]
TASKS = ["multiclass", "multilabel", "binary"]


def random_samples(task, seed=0, count=200, dtype=np.float32, ties=False):
    """Scores and labels of a model that is right more often than not; the last class is never labelled."""
    generator = np.random.default_rng(seed)
    classes = len(CLASSES)
    if task == "multiclass":
        labels = generator.integers(0, classes - 1, count)
        logits = generator.normal(size=(count, classes)) + 1.5 * np.eye(classes)[labels]
        scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    else:
        shape = (count, classes) if task == "multilabel" else (count,)
        labels = generator.integers(0, 2, shape)
        if task == "multilabel":
            labels[:, -1] = 0
        scores = 1 / (1 + np.exp(-(generator.normal(size=shape) + 2 * labels - 1)))
    return (np.round(scores, 1) if ties else scores).astype(dtype), labels


def metric_of(task, **options):
    return ClassificationMetric(["no", "yes"] if task == "binary" else CLASSES, task, **options)


def evaluate(task, scores, labels, **options):
    metric = metric_of(task, **options)
    metric.update(scores, labels)
    return metric.compute()


def rates_by_loops(truth, yes, zero_division=math.nan):
    """Per class and overall, from ``(N, C)`` flags of what is and what was said."""

    def divide(numerator, denominator):
        return numerator / denominator if denominator else zero_division

    def rates(cells):
        tp, fp, fn, tn = (sum(cell == wanted for cell in cells) for wanted in ("11", "01", "10", "00"))
        return {
            "precision": divide(tp, tp + fp),
            "recall": divide(tp, tp + fn),
            "specificity": divide(tn, tn + fp),
            "F1": divide(2 * tp, 2 * tp + fp + fn),
        }

    cells = [[f"{int(t)}{int(y)}" for t, y in zip(*column, strict=True)] for column in zip(truth.T, yes.T, strict=True)]
    per_class = [rates(column) for column in cells]
    return {name: [each[name] for each in per_class] for name in per_class[0]}, rates(list(chain(*cells)))


def flags_of(task, scores, labels):
    """What is and what was said, ``(N, C)``."""
    if task == "multiclass":
        eye = np.eye(len(CLASSES), dtype=bool)
        return eye[labels], eye[[list(row).index(max(row)) for row in scores]]
    return labels.reshape(len(labels), -1).astype(bool), (scores >= 0.5).reshape(len(labels), -1)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("zero_division", [math.nan, 0.0, 1.0])
def test_rates_equal_loops(task, ties, zero_division):
    scores, labels = random_samples(task, ties=ties)
    result = evaluate(task, scores, labels, zero_division=zero_division)
    truth, yes = flags_of(task, scores, labels)
    per_class, overall = rates_by_loops(truth, yes, zero_division)
    for name, expected in per_class.items():
        found, expected = result.rates[name], np.array(expected)
        np.testing.assert_allclose(found.per_class, expected, rtol=0, atol=1e-15)
        np.testing.assert_allclose(found.macro, np.nanmean(expected), rtol=0, atol=1e-15)
        defined = ~np.isnan(expected)
        weighted = np.average(expected[defined], weights=truth.sum(0)[defined])
        np.testing.assert_allclose(found.weighted, weighted, rtol=0, atol=1e-15)
        np.testing.assert_allclose(found.micro, overall[name], rtol=0, atol=1e-15)
    assert result.support.tolist() == truth.sum(0).tolist()
    assert result.accuracy == pytest.approx(yes[truth].mean() if task == "multiclass" else (yes == truth).mean())
    if task == "multiclass":
        expected = [[int((truth[:, t] & yes[:, y]).sum()) for y in range(5)] for t in range(5)]
        assert result.confusion.tolist() == expected
    else:
        tables = result.confusion.reshape(-1, 2, 2)
        for column in range(truth.shape[1]):
            expected = [[int(((truth == t) & (yes == y))[:, column].sum()) for y in (0, 1)] for t in (0, 1)]
            assert tables[column].tolist() == expected


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_rank_is_the_place_in_a_stable_sort(ties):
    scores, labels = random_samples("multiclass", ties=ties)
    result = evaluate("multiclass", scores, labels, top_k=(1, 2, 3, 4))
    places = [
        sorted(range(len(row)), key=lambda index: (-row[index], index)).index(label)
        for row, label in zip(scores, labels, strict=True)
    ]
    assert result.top_k == {k: np.mean([place < k for place in places]) for k in (1, 2, 3, 4)}
    assert result.top_k[1] == result.accuracy


def test_rank_with_more_classes_than_a_small_counter_holds(monkeypatch):
    monkeypatch.setattr("cvplugins.metrics.classification.SCORES_AT_ONCE", 150_000)  # two samples at once
    scores = np.tile(np.linspace(1, 0, 70_000, dtype=np.float32), (5, 1))
    scores[4] = 0.5
    labels = [0, 300, 65_536, 69_999, 42]
    metric = ClassificationMetric([str(index) for index in range(70_000)], curves=False)
    state = metric.state(scores, labels)
    assert state.samples["rank"].tolist() == labels
    assert state.samples["predicted"].tolist() == [0] * 5


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_log_loss_and_calibration_equal_loops(task, dtype):
    scores, labels = random_samples(task, dtype=dtype)
    scores = scores.copy()
    scores[0] = 0  # the logarithm of 0 is kept finite, and 0 belongs to the first bin
    result = evaluate(task, scores, labels, bins=10)
    wide = scores.astype(np.float64)
    if task == "multiclass":
        own = wide[np.arange(len(labels)), labels]
        confidence, right = wide.max(1), wide.argmax(1) == labels
    else:
        own = np.where(labels == 1, wide, 1 - wide).ravel()
        confidence, right = wide.ravel(), labels.ravel() == 1
    margin = np.finfo(np.float64 if dtype == np.float64 else np.float32).eps
    expected = math.fsum(-math.log(min(max(value, margin), 1 - margin)) for value in own) / len(own)
    # 1 - p of a float32 is rounded to float32.
    assert result.log_loss == pytest.approx(expected, abs=1e-12 if dtype == np.float64 else 1e-7)
    bins = [[] for _ in range(10)]
    for value, flag in zip(confidence, right, strict=True):
        bins[next(place for place in range(10) if value <= np.linspace(0, 1, 11)[place + 1])].append((value, flag))
    gaps = [abs(np.mean([value - flag for value, flag in each])) if each else 0 for each in bins]
    calibration = result.calibration
    assert calibration.decisions.tolist() == [len(each) for each in bins]
    sizes = [len(each) for each in bins]
    assert calibration.expected_error() == pytest.approx(np.dot(gaps, sizes) / sum(sizes), abs=1e-14)
    assert calibration.maximum_error() == pytest.approx(max(gaps), abs=1e-14)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_equals_scikit_learn(task, ties):
    sklearn = pytest.importorskip("sklearn.metrics")
    scores, labels = random_samples(task, ties=ties, dtype=np.float64, count=500)
    result = evaluate(task, scores, labels, top_k=(1, 3))
    truth, yes = flags_of(task, scores, labels)
    said = yes.argmax(1) if task == "multiclass" else yes.reshape(labels.shape)
    options = dict(labels=range(5)) if task != "binary" else {}
    for score, key in [(sklearn.precision_score, "precision"), (sklearn.recall_score, "recall")]:
        check_averages(result.rates[key], score, labels, said, task, options)
    check_averages(result.rates["F1"], sklearn.f1_score, labels, said, task, options)
    if task == "multilabel":
        np.testing.assert_array_equal(result.confusion, sklearn.multilabel_confusion_matrix(labels, said))
    else:
        np.testing.assert_array_equal(result.confusion, sklearn.confusion_matrix(labels, said, **options))
    if task == "multiclass" and not ties:
        expected = sklearn.top_k_accuracy_score(labels, scores, k=3, labels=range(5))
        assert result.top_k[3] == expected
        assert result.log_loss == pytest.approx(sklearn.log_loss(labels, scores, labels=range(5)), abs=1e-12)
    if task == "binary":
        assert result.log_loss == pytest.approx(sklearn.log_loss(labels, scores), abs=1e-12)
    columns = scores.reshape(len(scores), -1)
    seen = range(truth.shape[1]) if task == "binary" else range(4)
    for column in seen:
        pair = truth[:, column], columns[:, column]
        assert result.roc_auc[column] == pytest.approx(sklearn.roc_auc_score(*pair), abs=1e-12)
        assert result.average_precision[column] == pytest.approx(sklearn.average_precision_score(*pair), abs=1e-12)
        precision, recall, _ = sklearn.precision_recall_curve(*pair)
        expected = sklearn.auc(recall, precision)
        assert result.areas["PR_AUC"].per_class[column] == pytest.approx(expected, abs=1e-12)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
        assert result.best_f1[column] == pytest.approx(f1.max(), abs=1e-12)
        assert sklearn.f1_score(pair[0], pair[1] >= result.best_threshold[column]) == pytest.approx(f1.max())
    pair = truth.ravel(), columns.ravel()
    precision, recall, _ = sklearn.precision_recall_curve(*pair)
    expected = [sklearn.roc_auc_score(*pair), sklearn.average_precision_score(*pair), sklearn.auc(recall, precision)]
    found = [result.areas[name].micro for name in ("AUC", "AP", "PR_AUC")]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    if task == "multilabel":
        expected = sklearn.roc_auc_score(truth, columns, average="micro")
        assert result.scalars()["AUC_micro"] == pytest.approx(expected, abs=1e-12)
        found = result.scalars()
        for average, key in [("macro", "AUC"), ("weighted", "AUC_weighted")]:
            expected = sklearn.roc_auc_score(truth[:, :4], columns[:, :4], average=average)
            assert found[key] == pytest.approx(expected, abs=1e-12)


def check_averages(rate, score, labels, said, task, options):
    if task == "binary":
        assert rate.per_class[0] == pytest.approx(score(labels, said, zero_division=np.nan), abs=1e-15)
        return
    for average, found in [(None, rate.per_class), ("macro", rate.macro), ("weighted", rate.weighted)]:
        expected = score(labels, said, average=average, zero_division=np.nan, **options)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(rate.micro, score(labels, said, average="micro", **options), rtol=0, atol=1e-14)


@pytest.mark.parametrize("task", ["multiclass", "binary"])
def test_equals_torchmetrics(task):
    """It counts in float32, hence the tolerances."""
    theirs = pytest.importorskip("torchmetrics.functional.classification")
    import torch

    scores, labels = random_samples(task, count=500)
    result = evaluate(task, scores, labels, top_k=(1, 3))
    pred, target = torch.from_numpy(scores), torch.from_numpy(labels)
    if task == "multiclass":
        for k in (1, 3):
            expected = theirs.multiclass_accuracy(pred, target, 5, average="micro", top_k=k)
            assert result.top_k[k] == pytest.approx(float(expected), abs=1e-7)
        for norm, found in [("l1", result.calibration.expected_error()), ("max", result.calibration.maximum_error())]:
            expected = theirs.multiclass_calibration_error(pred, target, 5, n_bins=15, norm=norm)
            assert found == pytest.approx(float(expected), abs=1e-6)
        specificity = theirs.multiclass_specificity(pred, target, 5, average="none")
        np.testing.assert_allclose(result.rates["specificity"].per_class, specificity, atol=1e-6)
    else:
        expected = theirs.binary_calibration_error(pred, target, n_bins=15, norm="l1")
        assert result.calibration.expected_error() == pytest.approx(float(expected), abs=1e-6)
        assert result.roc_auc[0] == pytest.approx(float(theirs.binary_auroc(pred, target)), abs=1e-5)
        expected = theirs.binary_specificity(pred, target)
        assert result.rates["specificity"].per_class[0] == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("curves", [True, False])
def test_merging_in_any_split_and_order_gives_the_same_bits(task, curves):
    scores, labels = random_samples(task, count=301, ties=True)
    expected = evaluate(task, scores, labels, curves=curves).as_dict()
    generator = np.random.default_rng(1)
    for parts in (1, 2, 3, 7):
        order = generator.permutation(len(scores))
        metrics = [metric_of(task, curves=curves) for _ in range(parts + 1)]  # the last one stays idle
        for index, own in enumerate(np.array_split(order, 4 * parts)):
            metrics[index % parts].update(scores[own], labels[own])
        metrics = pickle.loads(pickle.dumps(metrics))  # as ranks exchange them
        whole = metric_of(task, curves=curves)
        for part in reversed(metrics):
            whole.merge(part)
        assert whole.compute().as_dict() == expected


@pytest.mark.parametrize("task", TASKS)
def test_states_of_single_samples_are_those_of_a_batch(task):
    scores, labels = random_samples(task, count=40)
    metric, whole = metric_of(task), evaluate(task, scores, labels)
    metric.states = list(metric.state(scores, labels).split())
    assert len(metric.states) == 40
    assert all(isinstance(state, ClassificationState) and len(state.samples) == 1 for state in metric.states)
    assert metric.compute().as_dict() == whole.as_dict()


def merged_over_ranks(task):
    metric = metric_of(task)
    if rank() == 0:  # the other rank has nothing
        metric.update(*random_samples(task))
    whole = metric_of(task)
    for part in gather_objects(metric):
        whole.merge(part)
    return [whole.compute().as_dict(), metric_of(task).compute().as_dict()]


@pytest.mark.distributed
@pytest.mark.parametrize("task", TASKS)
def test_two_ranks_of_which_one_is_idle(task):
    expected = evaluate(task, *random_samples(task)).as_dict()
    for whole, idle in run_ranks(merged_over_ranks, 2, task):
        assert whole == expected
        assert idle["mean"] == {}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("curves", [True, False])
def test_no_samples(task, curves):
    result = metric_of(task, curves=curves).compute()
    assert result.scalars() == {}
    assert result.num_samples == 0
    json.dumps(result.as_dict(), allow_nan=False)
    empty = np.zeros((0,) if task == "binary" else (0, 5))
    assert evaluate(task, empty, np.zeros(empty.shape if task != "multiclass" else 0, int)).scalars() == {}


@pytest.mark.parametrize("task", TASKS)
def test_without_curves_the_rest_is_the_same(task):
    scores, labels = random_samples(task)
    full, lean = (evaluate(task, scores, labels, curves=curves).scalars() for curves in (True, False))
    gone = set(full) - set(lean)
    areas = {"AUC", "AP", "PR_AUC"}
    averages = {f"{area}_{average}" for area in areas for average in ("weighted", "micro")}
    assert gone == areas | ({"best_F1", "best_threshold"} if task == "binary" else averages)
    assert lean == {name: full[name] for name in lean}


def test_a_sample_takes_28_bytes_without_curves():
    scores, labels = random_samples("multiclass", count=100)
    state = metric_of("multiclass", curves=False).state(scores, labels)
    assert state.scores is None
    assert state.samples.nbytes == 2800


@pytest.mark.parametrize(("task", "size"), [("multilabel", 5), ("binary", 1)])
def test_decisions_take_a_byte_each_without_curves(task, size):
    scores, labels = random_samples(task, count=100)
    state = metric_of(task, curves=False, bins=10).state(scores, labels)
    assert state.scores is None
    assert state.samples.nbytes == 100 * (8 + size + 16 * 10)


@pytest.mark.parametrize("curves", [True, False])
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_labels_that_are_not_known_count_nowhere(curves, ties):
    """The oracle is each class as a binary metric of the samples whose label is known."""
    scores, labels = random_samples("multilabel", dtype=np.float64, ties=ties)
    known = np.random.default_rng(1).random(labels.shape) < 0.7
    known[:, 3] = False  # never known
    result = evaluate("multilabel", scores, np.where(known, labels, -1), curves=curves)
    for index in range(4):
        kept = known[:, index]
        alone = evaluate("binary", scores[kept, index], labels[kept, index], curves=curves)
        for name, rate in {**result.rates, **result.areas}.items():
            expected = {**alone.rates, **alone.areas}[name].per_class[0]
            np.testing.assert_array_equal(rate.per_class[index], expected, err_msg=name)
        assert result.support[index] == alone.support[0]
        assert result.confusion[index].tolist() == alone.confusion.tolist()
    whole = evaluate("binary", scores[known], labels[known], curves=curves)
    assert result.accuracy == whole.accuracy
    assert result.log_loss == pytest.approx(whole.log_loss, abs=1e-14)
    assert result.calibration.decisions.tolist() == whole.calibration.decisions.tolist()
    np.testing.assert_allclose(result.calibration.confidence, whole.calibration.confidence, rtol=0, atol=1e-14)
    for name, rate in {**result.rates, **result.areas}.items():
        expected = {**whole.rates, **whole.areas}[name].per_class[0]
        np.testing.assert_allclose(rate.micro, expected, rtol=0, atol=1e-15, err_msg=name)


def test_a_class_that_never_occurs_is_left_out():
    scores, labels = random_samples("multiclass")
    result = evaluate("multiclass", scores, labels)
    assert (scores.argmax(1) == 4).any()  # predicted all the same
    assert math.isnan(result.rates["recall"].per_class[4])
    assert math.isnan(result.roc_auc[4])
    assert math.isnan(result.average_precision[4])
    assert math.isnan(result.best_f1[4])
    assert result.rates["recall"].macro == pytest.approx(result.rates["recall"].per_class[:4].mean())
    assert result.scalars()["AUC"] == pytest.approx(result.roc_auc[:4].mean())
    written = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert written["per_class"]["unseen"]["recall"] is None
    assert written["per_class"]["unseen"]["ROC"] == {
        "false_positive_rate": [],
        "true_positive_rate": [],
        "score": [],
    }


def test_all_scores_equal():
    result = evaluate("multiclass", np.full((4, 5), 0.2), [0, 1, 2, 3], top_k=(1, 2))
    assert result.top_k == {1: 0.25, 2: 0.5}  # the class listed first wins
    assert result.roc_auc[:4].tolist() == [0.5] * 4
    assert result.average_precision[:4].tolist() == [0.25] * 4


@pytest.mark.parametrize("task", TASKS)
def test_one_sample(task):
    scores, labels = random_samples(task, count=1)
    found = evaluate(task, scores, labels).scalars()
    assert "AUC" not in found
    assert found["top1" if task == "multiclass" else "accuracy"] in (0, 0.2, 0.4, 0.6, 0.8, 1)


def test_hand_calculation():
    result = ClassificationMetric(["no", "yes"], "binary")
    result.update([0.9, 0.8, 0.4, 0.5], [1, 0, 1, 1])
    found = result.compute().scalars()
    expected = {
        "accuracy": 1 / 2,
        "precision": 2 / 3,
        "recall": 2 / 3,
        "specificity": 0.0,
        "F1": 2 / 3,
        "AUC": 1 / 3,  # one of three positives is above the negative
        "AP": 1 / 3 + 1 / 3 * 2 / 3 + 1 / 3 * 3 / 4,
        # From recall 1/3 on, right before the next positive, precision is 1/2; then 2/3 and 3/4 are reached.
        "PR_AUC": (1 + 1) / 2 / 3 + (1 / 2 + 2 / 3) / 2 / 3 + (2 / 3 + 3 / 4) / 2 / 3,
        "log_loss": -(math.log(0.9) + math.log(0.2) + math.log(0.4) + math.log(0.5)) / 4,
        "best_F1": 6 / 7,
        "best_threshold": 0.4,
        "ECE": (0.1 + 0.8 + 0.6 + 0.5) / 4,
        "MCE": 0.8,
    }
    assert found == pytest.approx(expected)


def test_scores_that_are_no_probabilities_rank_but_have_no_likelihood():
    scores, labels = random_samples("multiclass")
    logits = np.log(scores) + 3
    found, expected = (evaluate("multiclass", each, labels).scalars() for each in (logits, scores))
    assert set(expected) - set(found) == {"log_loss", "ECE", "MCE"}
    assert found["AUC"] == pytest.approx(expected["AUC"], abs=1e-3)
    assert found["top1"] == expected["top1"]


def test_long_curves_are_thinned_in_the_file_only():
    scores, labels = random_samples("binary", count=20_000)
    result = evaluate("binary", scores, labels)
    assert len(result.roc[0].score) > 1000
    written = result.as_dict()["per_class"]["yes"]["ROC"]
    assert len(written["score"]) == 1000
    assert (written["true_positive_rate"][0], written["true_positive_rate"][-1]) == (0, 1)


def test_state_does_not_change_with_the_callers_array():
    scores, labels = random_samples("multiclass")
    metric = metric_of("multiclass")
    metric.update(scores, labels)
    expected = metric.compute().as_dict()
    scores[:], labels[:] = 0, 0
    assert metric.compute().as_dict() == expected


def test_order_in_memory_does_not_matter():
    scores, labels = random_samples("multiclass")
    assert (
        evaluate("multiclass", np.asfortranarray(scores), labels).as_dict()
        == evaluate("multiclass", scores, labels).as_dict()
    )


@pytest.mark.parametrize(
    ("task", "scores", "labels", "message"),
    [
        ("multiclass", [[0.2] * 5, [np.nan] + [0.2] * 4], [0, 0], "sample b.jpg: a score is NaN"),
        ("multilabel", [[0.2] * 5, [0.2] * 4 + [np.nan]], np.zeros((2, 5)), "sample b.jpg: a score is NaN"),
        ("binary", [0.2, np.nan], [0, 1], "sample b.jpg: a score is NaN"),
        ("multiclass", np.ones((2, 5)), [0, 5], "sample b.jpg: label 5 is none of 0 to 4"),
        ("multiclass", np.ones((2, 5)), [0, -1], "sample b.jpg: label -1 is none of 0 to 4"),
        ("multiclass", np.ones((2, 5)), [0, 1.5], "sample b.jpg: label 1.5 is none of 0 to 4"),
        ("multilabel", np.ones((2, 5)), [[0] * 5, [0, 0, 2, 0, 0]], "sample b.jpg: label 2 is none of -1 to 1"),
        ("binary", np.ones(2), [0, -1], "sample b.jpg: label -1 is none of 0 to 1"),
        ("multiclass", np.ones((2, 4)), [0, 1], r"scores have shape \(2, 4\); multiclass needs \(N, 5\)"),
        ("multiclass", np.ones((2, 5)), [0], r"labels have shape \(1,\); multiclass needs"),
        ("multilabel", np.ones((2, 5)), [0, 1], r"labels have shape \(2,\); multilabel needs \(N, 5\)"),
        ("binary", np.ones((2, 2)), [0, 1], r"scores have shape \(2, 2\); binary needs \(N,\)"),
    ],
)
def test_wrong_input_is_named_with_its_sample(task, scores, labels, message):
    with pytest.raises(ValueError, match=message):
        metric_of(task).update(scores, labels, ["a.jpg", "b.jpg"])
    if "b.jpg" in message:
        with pytest.raises(ValueError, match=message.replace("b.jpg", "1")):
            metric_of(task).update(scores, labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(task="multi"), "task is 'multi'; there are: multiclass, multilabel, binary"),
        (dict(classes=[]), "at least one; there are 0"),
        (dict(task="binary"), "two, negative and positive; there are 5"),
        (dict(top_k=(0, 1)), r"top_k is \(0, 1\); each k has to be at least 1"),
        (dict(bins=0), "bins is 0; calibration needs at least 1"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ClassificationMetric(**{"classes": CLASSES, **options})


def test_metrics_that_differ_do_not_merge():
    others = [metric_of("multilabel"), ClassificationMetric(["a"])]
    others += [metric_of("multiclass", **{name: value}) for name, value in dict(curves=False, bins=3).items()]
    for other in others:
        with pytest.raises(ValueError, match="differ in one of classes, task, curves, threshold, bins"):
            metric_of("multiclass").merge(other)
