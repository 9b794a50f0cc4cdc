"""Classification metric: mmpretrain's data samples to arrays, once; log, JSON and figures from the core's result."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cvplugins import metrics
from cvplugins.metrics import ClassificationState
from cvplugins.registry import METRICS

from .base import PluginMetric, as_array

__all__ = ["ClassificationMetric"]


@METRICS.register_module()
class ClassificationMetric(PluginMetric):
    """Everything from accuracy to calibration; see :class:`cvplugins.metrics.ClassificationMetric`.

    Takes data samples as mmpretrain's: ``pred_score``, and ``gt_label`` or, if multi-label, ``gt_score``. Binary
    models give the score of the positive class, or both. Multi-label samples leave out classes whose ``gt_score`` is
    -1 or which stand in ``gt_label_difficult`` alone, as mmpretrain's VOC metrics do. Logs ``cls/top1``, ``cls/F1``,
    ``cls/AUC`` and so on, and a table; writes ``cls_results.json`` and, as PNG and SVG, ``cls_figure`` (curves,
    reliability), ``cls_confusion`` and ``cls_rates``. Fractions are in [0, 1]; mmpretrain gives per cent.

    Args:
        task: ``"multiclass"``, ``"multilabel"`` or ``"binary"``.
        classes: Class names; the dataset's if None.
        out_dir, collect_device, prefix: See :class:`PluginMetric`.
        options: ``top_k``, ``threshold``, ``bins``, ``curves`` and ``zero_division`` of the core class. Curves keep
            every score: 200 MB for 50,000 images of 1,000 classes.

    Raises:
        ValueError: An option is none of what is accepted.
    """

    default_prefix = "cls"

    def __init__(
        self,
        task: str = "multiclass",
        classes: Sequence[str] | None = None,
        out_dir: str | os.PathLike | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(out_dir=out_dir, collect_device=collect_device, prefix=prefix)
        self.classes = classes
        self.options = {"task": task, **options}
        # The dataset's classes are not known yet, but a wrong option should stop the run before it begins.
        metrics.ClassificationMetric(classes or ["no", "yes"], **self.options)

    def names(self) -> list[str]:
        """See :class:`PluginMetric`."""
        return list(self._core().compute().numbers())

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Append the state of each image."""
        core = self._core()
        names = [str(sample.get("img_path") or sample.get("sample_idx", "?")) for sample in data_samples]
        pairs = zip(data_samples, names, strict=True)
        scores, labels = zip(*(self._scores_and_label(*pair, len(core.classes)) for pair in pairs), strict=True)
        self.results += core.state(np.stack(scores), np.stack(labels), names).split()

    def compute_metrics(self, results: list[ClassificationState]) -> dict[str, float]:
        """Compute, log and write the metrics of all images."""
        core = self._core()
        core.states = results
        result = core.compute()
        self.report(result)
        return result.scalars()

    def _core(self) -> metrics.ClassificationMetric:
        classes = self.classes or (self.dataset_meta or {}).get("classes")
        if not classes:
            raise ValueError(
                "the dataset names no classes; give ClassificationMetric(classes=[...]), or the dataset's metainfo"
            )
        return metrics.ClassificationMetric(classes, **self.options)

    def _scores_and_label(self, sample: Mapping[str, Any], name: str, num_classes: int) -> tuple[Any, Any]:
        if "pred_score" not in sample:
            raise ValueError(f"image {name}: no pred_score; the model has to give the score of each class")
        scores = as_array(sample["pred_score"]).reshape(-1)
        if self.options["task"] == "multilabel":
            return scores, _flags(sample, name, num_classes)
        labels = as_array(sample["gt_label"]).reshape(-1)
        if len(labels) != 1:
            raise ValueError(f"image {name}: {len(labels)} labels; task='multilabel' is for more or fewer than one")
        if self.options["task"] == "binary":
            if len(scores) > 2:
                raise ValueError(f"image {name}: {len(scores)} scores; task='binary' takes one, or two for no and yes")
            return scores[-1], labels[0]
        return scores, labels[0]


def _flags(sample: Mapping[str, Any], name: str, num_classes: int) -> np.ndarray:
    """Return 0 and 1 per class, from ``gt_score`` or else ``gt_label``; -1 for a class that is only difficult."""
    labels = _indices(sample.get("gt_label", ()), name, num_classes)
    flags = np.zeros(num_classes, np.int64)
    flags[labels] = 1
    if "gt_score" in sample:
        flags = as_array(sample["gt_score"]).reshape(-1).copy()
    difficult = _indices(sample.get("gt_label_difficult", ()), name, num_classes)
    if len(difficult):
        flags[np.setdiff1d(difficult, np.flatnonzero(flags == 1))] = -1
    return flags


def _indices(values: Any, name: str, num_classes: int) -> np.ndarray:
    labels = as_array(values).astype(np.int64).reshape(-1)
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise ValueError(f"image {name}: label {wrong[0]} is none of 0 to {num_classes - 1}")
    return labels
