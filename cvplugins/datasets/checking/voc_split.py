"""Check a split in PASCAL VOC's layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence

from cvplugins.datasets.boxes import box_problem
from cvplugins.datasets.class_names import ClassCounts, check_spelling
from cvplugins.datasets.findings import Findings
from cvplugins.datasets.image_lists import read_image_list
from cvplugins.datasets.image_readers import ImageReader
from cvplugins.datasets.layouts import DataSplit
from cvplugins.datasets.voc import VOCObject, VOCSource, annotation_problems, check_voc_folders, check_voc_source
from cvplugins.datasets.voc_boxes import voc_edges, voc_pixels
from cvplugins.errors import DataError

from .split_report import SplitReport, warn_of_spelling

__all__ = ["EVERY_NAME", "check_voc_split"]

ONE_PIXEL = "readers whose boxes end at xmax and ymax see nothing of it"


class _EveryName(Container[str]):
    """Holds every name: objects of all classes are read."""

    def __contains__(self, name: object) -> bool:
        return True


EVERY_NAME = _EveryName()


def check_voc_split(
    split: DataSplit, findings: Findings, reader: ImageReader, classes: Sequence[str] | None = None
) -> SplitReport:
    """Check lists, annotations, boxes and images; see :func:`cvplugins.datasets.checking.check_splits`."""
    source, report = split.source, SplitReport(split.name)
    if source is None:
        raise ValueError("the split is not of VOC's layout")
    read = EVERY_NAME if classes is None else classes
    with findings.step("lists"):
        check_voc_folders(source)
        report.images = len(read_image_list(source.image_list, source.annotations).ids)
    if not report.images:
        return report
    try:
        summary, broken = check_voc_source(
            source, classes=read, skip_broken=True, reader=reader, box_problem=_box_problem
        )
    except DataError as error:  # not one image is whole
        _report_broken(source, error.problems, read, findings)
        return report
    _report_broken(source, [reason for _, reason in broken], read, findings)
    for _, reason in summary.unusable:
        (findings.warn if ONE_PIXEL in reason else findings.error)("boxes", reason)
    findings.warn("images", *(f"{split.name}: {warning}" for warning in summary.warnings))
    counts = summary.counts
    report.objects = Counter(counts.usable) + Counter(counts.unusable)
    _check_names(split.name, classes, counts, findings)
    return report


def _report_broken(source: VOCSource, reasons: Sequence[str], classes: Container[str], findings: Findings) -> None:
    for reason in reasons:
        file = reason.partition(":")[0].partition(", line")[0]
        if not file.endswith(".xml"):
            findings.error("images", reason)
            continue
        # The reader stops at the first mistake of a file.
        problems = annotation_problems(file, classes)
        findings.error("annotations", *(problems if len(problems) > 1 else [reason]))


def _check_names(name: str, classes: Sequence[str] | None, counts: ClassCounts, findings: Findings) -> None:
    if classes is None:
        warn_of_spelling(name, {*counts.usable, *counts.unusable}, counts, findings)
        return
    with findings.step("classes"):
        check_spelling(classes, counts, name)
    for other, number in counts.others.items():
        findings.warn("classes", f"{counts.places[other]}: {number} objects of {other!r}, which is none of the classes")


def _box_problem(found: VOCObject, width: int | None, height: int | None) -> str | None:
    """Return why nothing can be learnt from a box for any reader, or for those that cut boxes at their last pixel."""
    sides = (found.xmin, found.ymin, found.xmax, found.ymax)
    problem = box_problem(voc_edges(*sides), width, height)
    if problem or found.difficult:
        return None if found.difficult else problem
    cut = box_problem(voc_pixels(*map(int, sides)), width, height)
    return cut and f"{cut}; {ONE_PIXEL}"
