"""Check a split of images and label maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cvplugins.datasets.findings import Findings
from cvplugins.datasets.image_readers import ImageReader
from cvplugins.datasets.label_images import READ, SceneReader, count_labels, pair_problems
from cvplugins.datasets.layouts import DataSplit
from cvplugins.errors import DataError

from .split_report import SplitReport

__all__ = ["check_label_split", "class_names"]

IGNORED = 255


def check_label_split(
    split: DataSplit,
    findings: Findings,
    reader: ImageReader,
    classes: Sequence[str] | None = None,
    reduce_zero_label: bool = False,
) -> SplitReport:
    """Check pairs, sizes and labels; see :func:`cvplugins.datasets.checking.check_splits`.

    The pixels of 200 label maps are looked at, evenly spread, or of all with ``reader.full``.
    """
    report = SplitReport(split.name, len(split.pairs), unit="pixels")
    scenes = SceneReader(image=reader, label=replace(reader, turns="none"))
    problems, warnings = pair_problems(split.pairs, scenes)
    findings.error("images and label maps", *(each for each in problems if each is not None))
    findings.warn("images and label maps", *(f"{split.name}: {warning}" for warning in warnings))
    findings.warn("images and label maps", *(f"{path}: has no image" for path in split.orphans))
    _check_suffixes(split, findings)
    whole = [label for (_, label), problem in zip(split.pairs, problems, strict=True) if problem is None]
    chosen = whole if reader.full else _spread(whole)
    totals: Counter[int] = Counter()
    report.looked_at = len(chosen)
    for path, counts in zip(chosen, count_labels(chosen, scenes), strict=True):
        if isinstance(counts, DataError):
            findings.error("label maps", *counts.problems)
            continue
        totals.update(counts)
        _check_range(path, counts, classes, reduce_zero_label, findings)
    names = class_names(totals, classes, reduce_zero_label)
    report.objects = Counter({name: totals[label] for label, name in names.items() if totals[label]})
    _check_occurrence(split.name, totals, names, findings)
    return report


def class_names(
    labels: Mapping[int, int], classes: Sequence[str] | None, reduce_zero_label: bool = False
) -> dict[int, str]:
    """Return the name of each label that is a class; those that occur, by their numbers, where none are given."""
    first = int(reduce_zero_label)
    if classes is not None:
        return {label: name for label, name in enumerate(classes, start=first)}
    return {label: str(label) for label in sorted(labels) if label >= first and label != IGNORED}


def _spread(paths: Sequence[Path]) -> list[Path]:
    if not paths:
        return []
    return [paths[place] for place in np.unique(np.linspace(0, len(paths) - 1, READ).astype(np.int64))]


def _check_suffixes(split: DataSplit, findings: Findings) -> None:
    """Warn of images that a loader would not look for, because it looks for one suffix."""
    suffixes = Counter(image.suffix for image, _ in split.pairs)
    usual = suffixes.most_common(1)[0][0] if suffixes else ""
    for suffix, number in suffixes.items():
        if suffix != usual:
            first = next(image for image, _ in split.pairs if image.suffix == suffix)
            findings.warn(
                "images and label maps",
                f"{first}: {number} images end in {suffix}, the others in {usual}; loaders look for one of them",
            )


def _check_range(
    path: Path, counts: Mapping[int, int], classes: Sequence[str] | None, reduce_zero_label: bool, findings: Findings
) -> None:
    if classes is None:
        return
    largest = len(classes) - 1 + int(reduce_zero_label)
    wrong = [label for label in counts if largest < label != IGNORED]
    findings.error(
        "label maps",
        *(
            f"{path}: label {label} ({counts[label]} pixels) is none of the {len(classes)} classes, which are the "
            f"labels {int(reduce_zero_label)} to {largest}"
            for label in wrong
        ),
    )


def _check_occurrence(name: str, totals: Mapping[int, int], names: Mapping[int, str], findings: Findings) -> None:
    missing = [f"{label} ({each})" for label, each in names.items() if not totals.get(label)]
    if missing:
        findings.warn("classes", f"{name}: labels that occur in none of the label maps looked at: {', '.join(missing)}")
    if set(totals) == {0, IGNORED}:
        findings.warn(
            "classes",
            f"{name}: there are labels 0 and 255 alone, and 255 is ignored; if it means a class, store it as 1",
        )
