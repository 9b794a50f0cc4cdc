"""Check the splits of a data set, each by its layout, and what they have in common."""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import combinations
from pathlib import Path

from cvplugins.datasets.findings import Findings
from cvplugins.datasets.image_readers import ImageReader
from cvplugins.datasets.layouts import DataSplit, image_paths, is_held_out
from cvplugins.errors import DataError

from .coco_split import check_coco_split
from .label_split import check_label_split
from .leaks import NEAR, find_leaks
from .split_report import SplitReport
from .voc_split import check_voc_split

__all__ = ["check_leaks", "check_splits"]


def check_splits(
    splits: Sequence[DataSplit],
    findings: Findings,
    *,
    classes: Sequence[str] | None = None,
    reduce_zero_label: bool = False,
    full: bool = False,
    near: int | None = NEAR,
) -> list[SplitReport]:
    """Check everything that training and testing will read.

    Args:
        splits: What :func:`cvplugins.datasets.layouts.find_splits` found.
        findings: Where to put what is found.
        classes: Names of the classes; those that occur if None. Of label maps the names stand for the labels.
        reduce_zero_label: Whether 0 means "no class" in label maps.
        full: Whether to decode every image and every label map.
        near: How many bits of 128 may differ between near duplicates; None to look for none.

    Returns:
        What each split holds.
    """
    reader = ImageReader(full=full)
    reports = []
    for split in splits:
        if split.layout == "voc":
            reports.append(check_voc_split(split, findings, reader, classes))
        elif split.layout == "coco":
            reports.append(check_coco_split(split, findings, reader, classes))
        else:
            reports.append(check_label_split(split, findings, reader, classes, reduce_zero_label))
    _compare_classes(reports, findings)
    if near is not None:
        check_leaks([(each.name, _images(each)) for each in splits], findings, near)
    return reports


def check_leaks(splits: Sequence[tuple[str, Sequence[Path]]], findings: Findings, near: int = NEAR) -> None:
    """Look for images that one split shares with another one, of which at least one is held out.

    Args:
        splits: Name and images of each.
        findings: Where to put what is found.
        near: How many bits of 128 may differ.
    """
    for (name, images), (other, others) in combinations(splits, 2):
        if not is_held_out(name) and not is_held_out(other):
            continue
        for leak in find_leaks(images, others, near):
            place = f"{leak.other}: of {other}"
            if leak.kind == "same file":
                findings.error("leaks", f"{place} is an image of {name} too; take it off one of the lists")
            elif leak.kind == "same bytes":
                findings.error("leaks", f"{place} has the same bytes as {leak.image} of {name}; keep one of them")
            else:
                findings.warn(
                    "leaks", f"{place} is nearly the same picture as {leak.image} of {name} ({leak.bits} of 128 bits)"
                )


def _images(split: DataSplit) -> list[Path]:
    try:
        return image_paths(split)
    except DataError:  # the split's own check has named it
        return []


def _compare_classes(reports: Sequence[SplitReport], findings: Findings) -> None:
    """Warn of classes that are tested but never trained on."""
    trained: Container[str] = {name for each in reports if not is_held_out(each.name) for name in each.objects}
    if not trained:
        return
    for report in reports:
        missing = [name for name in report.objects if name not in trained]
        if is_held_out(report.name) and missing:
            findings.warn("classes", f"{report.name}: classes that no training split has: {', '.join(missing)}")
