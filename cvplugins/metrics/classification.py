"""Classification: one label of many, several labels, or yes and no; every usual number from one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .average_precision import PrecisionRecallCurve
from .calibration import Calibration, calibrate, calibration_of_bins, sum_by_bin
from .class_counts import ClassCounts, ClassRate, mean_over_classes
from .matching import Floats, Integers
from .ranking import RankedCounts, RocCurve, rank_counts
from .undefined import by_class, defined, none_if_undefined

__all__ = ["ClassificationMetric", "ClassificationResult", "ClassificationState"]

TASKS = ("multiclass", "multilabel", "binary")
SHARED = ("classes", "task", "curves", "threshold", "bins")  # what parts have to have in common
AREAS = {
    "AUC": RankedCounts.roc_auc,
    "AP": RankedCounts.average_precision,
    "PR_AUC": RankedCounts.precision_recall_auc,
}
DECISIONS = (1, 5, 2, 6)  # true negative, false positive, false negative, true positive
SCORES_AT_ONCE = 2**19  # 2 MiB of float32, so that a block stays in the cache
MAX_LOGGED_CLASSES = 100
MAX_WRITTEN_POINTS = 1000
# What a multi-class metric needs of a sample beside the curves.
SUMMARY = np.dtype([("label", "i4"), ("predicted", "i4"), ("rank", "i4"), ("confidence", "f8"), ("loss", "f8")])


@dataclass(frozen=True)  # mmengine turns a named tuple into a plain one
class ClassificationState:
    """What a :class:`ClassificationMetric` keeps of N samples.

    Attributes:
        samples: A record each, ``(N,)``: of 28 bytes for ``"multiclass"``, else of 8, 1 a class and 16 a bin.
        scores: ``(N, C)``; None where they are not kept.
    """

    samples: NDArray[Any]
    scores: NDArray[Any] | None

    def split(self) -> Iterator[ClassificationState]:
        """Yield the state of each sample."""
        for index in range(len(self.samples)):
            scores = None if self.scores is None else self.scores[index : index + 1]
            yield ClassificationState(self.samples[index : index + 1], scores)


@dataclass(frozen=True)
class ClassificationResult:
    """The metrics of :class:`ClassificationMetric`; NaN where undefined. Rates and areas are in [0, 1].

    Attributes:
        classes: Class names, C of them; only the positive one for ``"binary"``.
        task: ``"multiclass"``, ``"multilabel"`` or ``"binary"``.
        num_samples: Samples counted.
        support: Samples that have the class, ``(C,)``.
        accuracy: Fraction of right decisions, over samples, or over samples and classes.
        top_k: Fraction of samples whose class is among the k highest scores, by k; empty unless multi-class.
        rates: ``precision``, ``recall``, ``specificity`` and ``F1``, per class and averaged.
        confusion: Samples by true (row) and predicted class, ``(C, C)``; by no and yes, ``(C, 2, 2)`` or, for
            ``"binary"``, ``(2, 2)``.
        log_loss: Mean negative log-likelihood.
        calibration: Reliability curve of the winning class, or of every score if multi-label or binary.
        areas: ``AUC``, under the ROC curve; ``AP``, average precision, which is the area under the precision-recall
            curve by steps; ``PR_AUC``, the same by trapezoids: too optimistic, but often published. Each class
            against the rest, and their means; ``micro`` is that of all decisions as one ranking.
        best_f1: Highest F1 over all thresholds, ``(C,)``.
        best_threshold: The score that has to be reached for it, ``(C,)``.
        roc: ROC curve of each class.
        precision_recall: Precision-recall curve of each class.
    """

    classes: tuple[str, ...]
    task: str
    num_samples: int
    support: Integers
    accuracy: float
    top_k: dict[int, float]
    rates: dict[str, ClassRate]
    confusion: Integers
    log_loss: float
    calibration: Calibration
    areas: dict[str, ClassRate]
    best_f1: Floats
    best_threshold: Floats
    roc: tuple[RocCurve, ...]
    precision_recall: tuple[PrecisionRecallCurve, ...]

    @property
    def roc_auc(self) -> Floats:
        """Area under the ROC curve of each class, ``(C,)``."""
        return self.areas["AUC"].per_class

    @property
    def average_precision(self) -> Floats:
        """Average precision of each class, ``(C,)``."""
        return self.areas["AP"].per_class

    def numbers(self) -> dict[str, float]:
        """Return what is one number; NaN where it is undefined.

        ``F1/<class>`` is among them for up to 100 classes.
        """
        values = {f"top{k}": value for k, value in self.top_k.items()} or {"accuracy": self.accuracy}
        for name, rate in {**self.rates, **self.areas}.items():
            values |= {name: rate.macro, f"{name}_weighted": rate.weighted, f"{name}_micro": rate.micro}
        values |= {"log_loss": self.log_loss}
        values |= {"ECE": self.calibration.expected_error(), "MCE": self.calibration.maximum_error()}
        if self.task == "binary":
            values = {name: value for name, value in values.items() if not name.endswith(("_weighted", "_micro"))}
            values |= {"best_F1": float(self.best_f1[0]), "best_threshold": float(self.best_threshold[0])}
        elif len(self.classes) <= MAX_LOGGED_CLASSES:
            values |= {f"F1/{name}": float(self.rates["F1"].per_class[row]) for row, name in enumerate(self.classes)}
        return values

    def scalars(self) -> dict[str, float]:
        """Return the numbers without those that are undefined."""
        return defined(self.numbers())

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data that JSON can hold; undefined numbers are None.

        A curve of more than 1,000 points is thinned to as many, evenly; the numbers come from the whole curve.
        """
        columns = {
            **{name: rate.per_class for name, rate in {**self.rates, **self.areas}.items()},
            "best_F1": self.best_f1,
            "best_threshold": self.best_threshold,
        }
        numbers = by_class(columns, len(self.classes))
        per_class = {
            name: {
                "support": int(self.support[row]),
                **numbers[row],
                **({"ROC": _thinned(self.roc[row]), "PR": _thinned(self.precision_recall[row])} if self.roc else {}),
            }
            for row, name in enumerate(self.classes)
        }
        return {
            "task": self.task,
            "num_samples": self.num_samples,
            "mean": self.scalars(),
            "calibration": {
                "decisions": self.calibration.decisions.tolist(),
                "confidence": [none_if_undefined(value) for value in self.calibration.confidence],
                "accuracy": [none_if_undefined(value) for value in self.calibration.accuracy],
            },
            "confusion": self.confusion.tolist(),
            "per_class": per_class,
        }


class ClassificationMetric:
    """Accuracy, rates, confusion, curves, log loss and calibration; exact whatever the order or split of samples.

    - ``"multiclass"``: a sample has one class, and the highest score wins; of equal scores the class listed
      first. Its rank is the number of higher scores plus that of equal scores of classes listed before.
    - ``"multilabel"``: a sample has any number of classes; a score of at least ``threshold`` means yes. A class that
      is not known of a sample, such as that of VOC's difficult objects, has the label -1 and does not count.
    - ``"binary"``: the same for one class, the second of ``classes``.

    0 / 0, as in the recall of a class that never occurs or the precision of one that is never predicted, is
    NaN and left out of the means, unless ``zero_division`` says otherwise (mmpretrain and scikit-learn's default
    count 0). Log loss and calibration take scores as probabilities, and are undefined where a score that they
    need lies outside [0, 1]; log loss keeps probabilities off 0 and 1 by the precision of their type, like
    scikit-learn. Everything else needs only scores that sort.

    Args:
        classes: Class names; for ``"binary"`` two, the second being the positive one.
        task: ``"multiclass"``, ``"multilabel"`` or ``"binary"``.
        top_k: Which top-k accuracies; a k of C or more would always be 1 and is left out, save k = 1.
        threshold: Score from which on a class counts as predicted; unused for ``"multiclass"``.
        bins: Bins of the calibration error.
        curves: Whether to compute ROC and precision-recall curves, their areas, and the best F1, which need all
            scores, 4 bytes each if float32. The rest takes 28 bytes a sample for ``"multiclass"``, and for the other
            tasks 8, 1 a class and 16 a bin.
        zero_division: What 0 / 0 counts as in precision, recall, specificity and F1.

    Raises:
        ValueError: An argument is none of what is accepted.

    Example:
        >>> metric = ClassificationMetric(["cat", "dog", "owl"])
        >>> metric.update([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.5, 0.3, 0.2]], [0, 1, 2])
        >>> round(metric.compute().scalars()["top1"], 4)
        0.6667
    """

    def __init__(
        self,
        classes: Sequence[str],
        task: str = "multiclass",
        *,
        top_k: Sequence[int] = (1, 5),
        threshold: float = 0.5,
        bins: int = 15,
        curves: bool = True,
        zero_division: float = float("nan"),
    ) -> None:
        if task not in TASKS:
            raise ValueError(f"task is {task!r}; there are: {', '.join(TASKS)}")
        if len(classes) == 0 or (task == "binary" and len(classes) != 2):
            wanted = "two, negative and positive" if task == "binary" else "at least one"
            raise ValueError(f"task {task!r} needs the names of its classes, {wanted}; there are {len(classes)}")
        if any(k < 1 for k in top_k):
            raise ValueError(f"top_k is {tuple(top_k)}; each k has to be at least 1")
        if bins < 1:
            raise ValueError(f"bins is {bins}; calibration needs at least 1")
        self.classes, self.task = tuple(classes), task
        self.top_k = tuple(k for k in top_k if k == 1 or k < len(classes))
        self.threshold, self.bins, self.curves, self.zero_division = threshold, bins, curves, zero_division
        self.states: list[ClassificationState] = []

    def update(self, scores: ArrayLike, labels: ArrayLike, names: Sequence[object] | None = None) -> None:
        """Add samples.

        Args:
            scores: Of each class, ``(N, C)``; of the positive class, ``(N,)``, for ``"binary"``. Half precision
                becomes float32.
            labels: Class indices, ``(N,)``, for ``"multiclass"``; else 0 and 1 in the shape of ``scores``; for
                ``"multilabel"`` also -1 where it is not known.
            names: What to call the samples in an error; their numbers, from 0, if None.

        Raises:
            ValueError: Shapes do not fit, a score is NaN, or a label is out of range; the message names the sample.
        """
        self.states.append(self.state(scores, labels, names))

    def state(self, scores: ArrayLike, labels: ArrayLike, names: Sequence[object] | None = None) -> ClassificationState:
        """Return what is kept of some samples, without adding them; arguments and errors as for :meth:`update`."""
        values, targets = _floats(scores), np.asarray(labels)
        names = range(len(values)) if names is None else names
        columns = 1 if self.task == "binary" else len(self.classes)
        wanted = (len(values),) if self.task == "binary" else (len(values), columns)
        if values.shape != wanted:
            raise ValueError(f"scores have shape {values.shape}; {self.task} needs {_shape(wanted)}")
        wanted = wanted[:1] if self.task == "multiclass" else wanted
        if targets.shape != wanted:
            raise ValueError(f"labels have shape {targets.shape}; {self.task} needs {_shape(wanted)}")
        lowest, highest = -1 if self.task == "multilabel" else 0, columns - 1 if self.task == "multiclass" else 1
        _check_labels(targets, lowest, highest, names)
        if self.task == "multiclass":
            samples = _summarise(values, targets.astype(np.intp), names)
        else:
            values, targets = values.reshape(-1, columns), targets.reshape(-1, columns).astype(np.int8)
            _check_numbers(values.max(axis=1), names)
            samples = _summarise_several(values, targets, self.threshold, self.bins)
        return ClassificationState(samples, values.copy() if self.curves else None)

    def merge(self, other: ClassificationMetric) -> None:
        """Add the samples of another part of the data set.

        Raises:
            ValueError: Classes, task, threshold, bins, or whether curves are wanted differ.
        """
        if any(getattr(self, name) != getattr(other, name) for name in SHARED):
            raise ValueError(f"cannot merge classification metrics that differ in one of {', '.join(SHARED)}")
        self.states += other.states

    def compute(self) -> ClassificationResult:
        """Return the metrics over all samples so far."""
        samples, scores = self._joined()
        single = self.task == "multiclass"
        parts = _count_single(samples, len(self.classes), self.bins) if single else _count_several(samples)
        undefined = np.full(len(parts.counts.support), np.nan)
        areas = dict.fromkeys(AREAS, ClassRate(undefined, np.nan, np.nan, np.nan))
        ranked: list[RankedCounts] = []
        if scores is not None:
            labels = samples["label"] if single else _labels(samples)
            ranked = [rank_counts(*each) for each in _rankings(scores, labels)]
            micro = rank_counts(*_one_ranking(scores, labels))
            areas = {name: _area(area, ranked, micro, parts.counts.support) for name, area in AREAS.items()}
        curves = tuple(each.precision_recall_curve() for each in ranked)
        best = np.array([_best_f1(curve) for curve in curves]).reshape(-1, 2).T if ranked else [undefined, undefined]
        return ClassificationResult(
            classes=self.classes[1:] if self.task == "binary" else self.classes,
            task=self.task,
            num_samples=len(samples),
            support=parts.counts.support,
            accuracy=parts.accuracy,
            top_k={k: _fraction(samples["rank"] < k) for k in self.top_k} if single else {},
            rates=parts.counts.rates(self.zero_division),
            confusion=parts.confusion[0] if self.task == "binary" else parts.confusion,
            log_loss=parts.log_loss,
            calibration=parts.calibration,
            areas=areas,
            best_f1=best[0],
            best_threshold=best[1],
            roc=tuple(each.roc_curve() for each in ranked),
            precision_recall=curves,
        )

    def _joined(self) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Return the arrays of all states, joined."""
        columns = 1 if self.task == "binary" else len(self.classes)
        none = np.zeros(0, SUMMARY if self.task == "multiclass" else _summary_of_several(columns, self.bins))
        samples = np.concatenate([state.samples for state in self.states] or [none])
        if not self.curves:
            return samples, None
        kept = [state.scores for state in self.states if state.scores is not None]
        return samples, np.concatenate(kept or [np.zeros((0, columns))])


class _Parts(NamedTuple):
    """What all samples add up to, whatever the task."""

    counts: ClassCounts
    accuracy: float
    confusion: Integers
    log_loss: float
    calibration: Calibration


def _count_single(samples: NDArray[Any], num_classes: int, bins: int) -> _Parts:
    label, predicted = samples["label"].astype(np.int64), samples["predicted"]
    cells = np.bincount(label * num_classes + predicted, minlength=num_classes**2)
    confusion = cells.reshape(num_classes, num_classes)
    counts = ClassCounts(confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1), len(samples))
    right = label == predicted
    calibration = calibrate(samples["confidence"], right, bins)
    return _Parts(
        counts, _fraction(right), confusion, _ordered_sum(samples["loss"]) / (len(samples) or np.nan), calibration
    )


def _count_several(samples: NDArray[Any]) -> _Parts:
    confusion = np.stack([(samples["decision"] == code).sum(axis=0) for code in DECISIONS], axis=1)
    true_negatives, false_positives, false_negatives, hits = confusion.T
    known = confusion.sum(axis=1)
    total = int(known.sum())
    return _Parts(
        counts=ClassCounts(hits, hits + false_positives, hits + false_negatives, known),
        accuracy=int((true_negatives + hits).sum()) / (total or np.nan),
        confusion=confusion.reshape(-1, 2, 2),
        log_loss=_ordered_sum(samples["loss"]) / (total or np.nan),
        calibration=calibration_of_bins(samples["in_bin"], samples["confidence"], samples["right"]),
    )


def _summary_of_several(num_classes: int, bins: int) -> np.dtype[Any]:
    """What a metric of several labels needs of a sample beside the curves."""
    # Decisions are label + 1, plus 4 if the class is predicted.
    per_bin = [("in_bin", "i4", bins), ("right", "i4", bins), ("confidence", "f8", bins)]
    return np.dtype([("decision", "u1", num_classes), ("loss", "f8"), *((n, t, (size,)) for n, t, size in per_bin)])


def _summarise_several(scores: NDArray[Any], labels: NDArray[np.int8], threshold: float, bins: int) -> NDArray[Any]:
    """Return a record a sample, working through blocks that fit into the cache."""
    samples = np.empty(len(scores), _summary_of_several(scores.shape[1], bins))
    rows = max(1, SCORES_AT_ONCE // scores.shape[1])
    for start in range(0, len(scores), rows):
        block, label = scores[start : start + rows], labels[start : start + rows]
        part, known = samples[start : start + rows], label >= 0
        part["decision"] = (label + 1) + 4 * (block >= threshold)
        loss = _log_loss(np.where(label == 1, block, 1 - block))
        part["loss"] = np.where(known, loss, 0).sum(axis=1)
        # A score is the probability of yes, so what is "right" in a bin is the label.
        part["in_bin"], part["confidence"], part["right"] = sum_by_bin(block, label == 1, known, bins)
    return samples


def _labels(samples: NDArray[Any]) -> NDArray[np.int8]:
    """Return -1, 0 and 1, ``(N, C)``."""
    labels: NDArray[np.int8] = (samples["decision"] & 3).astype(np.int8) - np.int8(1)
    return labels


def _rankings(scores: NDArray[Any], labels: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
    """Yield the scores of each class, and which of them belong to a sample that has it."""
    for index, column in enumerate(_columns(scores)):
        if labels.ndim == 1:
            yield column, labels == index
        else:
            known = labels[:, index] >= 0
            yield column[known], labels[known, index] == 1


def _one_ranking(scores: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the same of all classes together."""
    if labels.ndim == 1:
        truth = np.zeros(scores.shape, bool)
        truth[np.arange(len(labels)), labels] = True
        return scores.ravel(), truth.ravel()
    known = labels >= 0
    return scores[known], labels[known] == 1


def _area(
    area: Callable[[RankedCounts], float], ranked: Sequence[RankedCounts], micro: RankedCounts, support: Integers
) -> ClassRate:
    per_class = np.array([area(each) for each in ranked])
    return ClassRate(per_class, mean_over_classes(per_class), mean_over_classes(per_class, support), area(micro))


def _summarise(scores: NDArray[Any], labels: NDArray[np.intp], names: Sequence[object]) -> NDArray[Any]:
    """Return a record a sample, working through blocks that fit into the cache."""
    samples = np.empty(len(scores), SUMMARY)
    own, confidence = np.empty((2, len(scores)), scores.dtype)
    rows = max(1, SCORES_AT_ONCE // scores.shape[1])
    for start in range(0, len(scores), rows):
        part = slice(start, start + rows)
        block, label = scores[part], labels[part]
        place = np.arange(len(block))
        predicted = block.argmax(axis=1)
        own[part], confidence[part] = block[place, label], block[place, predicted]
        samples["predicted"][part] = predicted
        samples["rank"][part] = _rank(block, own[part], label)
    _check_numbers(confidence, names)  # argmax stops at a NaN
    samples["label"], samples["confidence"], samples["loss"] = labels, confidence, _log_loss(own)
    return samples


def _rank(scores: NDArray[Any], own: NDArray[Any], label: NDArray[np.intp]) -> Integers:
    """Return how many classes stand before the true one, in rows of ``scores``."""
    rank = _count_true(scores >= own[:, None]) - 1
    equal = scores == own[:, None]
    if np.count_nonzero(equal) > len(scores):  # more than each its own
        tied = np.flatnonzero(_count_true(equal) > 1)
        rank[tied] -= _count_true(equal[tied] & (np.arange(scores.shape[1]) > label[tied, None]))
    return rank


def _count_true(flags: NDArray[np.bool_]) -> Integers:
    """Return the number of True in each row; counted in 16 bits, which is four times as fast as in 64."""
    narrow = np.uint16 if flags.shape[1] < 2**16 else np.int64
    counted: Integers = flags.view(np.uint8).sum(axis=1, dtype=narrow).astype(np.int64)
    return counted


def _log_loss(probability: NDArray[Any]) -> Floats:
    """Return ``-log(probability)``, NaN outside of [0, 1]; kept off 0 and 1 by the precision of the type."""
    margin = np.finfo(probability.dtype).eps
    value = np.clip(probability.astype(np.float64), margin, 1 - margin)
    loss: Floats = np.where((probability >= 0) & (probability <= 1), -np.log(value), np.nan)
    return loss


def _fraction(flags: NDArray[np.bool_]) -> float:
    return float(flags.mean()) if flags.size else float("nan")


def _columns(scores: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield each column; copied a few at a time, since picking one from rows reads nearly all memory."""
    for start in range(0, scores.shape[1], 16):
        yield from np.ascontiguousarray(scores[:, start : start + 16].T)


def _best_f1(curve: PrecisionRecallCurve) -> tuple[float, float]:
    """Return the highest F1 and its threshold, the highest one if several; both NaN without a positive."""
    if not len(curve.score):
        return float("nan"), float("nan")
    f1 = 2 * curve.precision * curve.recall / (curve.precision + curve.recall)
    best = int(f1.argmax())
    return float(f1[best]), float(curve.score[best])


def _ordered_sum(values: Floats) -> float:
    """Return the sum in rising order, which does not depend on the order of the samples."""
    return float(np.sort(values).sum())


def _floats(scores: ArrayLike) -> NDArray[Any]:
    values = np.ascontiguousarray(scores)
    if values.dtype == np.float16:
        return values.astype(np.float32)
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)


def _check_labels(labels: NDArray[Any], lowest: int, highest: int, names: Sequence[object]) -> None:
    allowed = (labels >= lowest) & (labels <= highest) & (labels % 1 == 0)
    if not allowed.all():
        where = tuple(np.argwhere(~allowed)[0])
        raise ValueError(f"sample {names[where[0]]}: label {labels[where]} is none of {lowest} to {highest}")


def _check_numbers(scores: NDArray[Any], names: Sequence[object]) -> None:
    wrong = np.flatnonzero(np.isnan(scores))
    if len(wrong):
        raise ValueError(f"sample {names[wrong[0]]}: a score is NaN; look for the step that made it")


def _shape(wanted: tuple[int, ...]) -> str:
    return "(N,)" if len(wanted) == 1 else f"(N, {wanted[1]})"


def _thinned(curve: RocCurve | PrecisionRecallCurve) -> dict[str, list[float | None]]:
    length = len(curve.score)
    kept = np.unique(np.linspace(0, max(length - 1, 0), min(length, MAX_WRITTEN_POINTS)).round().astype(np.int64))
    return {
        name: [float(value) if np.isfinite(value) else None for value in values[kept]]
        for name, values in curve._asdict().items()
    }
