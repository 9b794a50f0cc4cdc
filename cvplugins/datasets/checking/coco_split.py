"""Check a split in COCO's layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cvplugins.datasets.boxes import box_problem
from cvplugins.datasets.class_names import ClassCounts
from cvplugins.datasets.coco import CocoAnnotations, read_coco_annotations
from cvplugins.datasets.coco_check import check_coco_file
from cvplugins.datasets.findings import Findings
from cvplugins.datasets.image_readers import ImageReader, check_images
from cvplugins.datasets.layouts import DataSplit

from .split_report import SplitReport, warn_of_spelling

__all__ = ["check_coco_split"]


def check_coco_split(
    split: DataSplit, findings: Findings, reader: ImageReader, classes: Sequence[str] | None = None
) -> SplitReport:
    """Check entries, boxes, outlines and images; see :func:`cvplugins.datasets.checking.check_splits`."""
    report = SplitReport(split.name)
    if split.annotations is None or split.images is None:
        raise ValueError("the split is not of COCO's layout")
    before = findings.errors
    with findings.step("annotations"):
        check_coco_file(split.annotations, masks="optional")
    with findings.step("annotations"):
        found = read_coco_annotations(split.annotations)
        report.images = len(found.images)
        if findings.errors == before:
            _check_objects(found, report, findings)
        if classes is not None:
            read_coco_annotations(split.annotations, classes)  # names those that are none of its categories
        _check_images(split, found, reader, findings)
    return report


def _check_objects(found: CocoAnnotations, report: SplitReport, findings: Findings) -> None:
    counts, report.objects = ClassCounts(), Counter()
    for image, objects in found.images.items():
        height, width = found.sizes[image]
        for label, box, crowd in zip(
            objects.labels.tolist(), objects.boxes.tolist(), objects.crowd.tolist(), strict=True
        ):
            name = found.classes[label]
            problem = box_problem(box, width, height) if objects.has_boxes else None
            if problem:
                findings.warn("boxes", f"{found.path}: object {name!r} of image {image} is left out: {problem}")
            counts.add(name, usable=not crowd and not problem)
            report.objects[name] += 1
    warn_of_spelling(report.name, found.classes, counts, findings)
    for name in found.classes:
        if not report.objects[name]:
            findings.warn("classes", f"{found.path}: there is no object of the category {name!r}")


def _check_images(split: DataSplit, found: CocoAnnotations, reader: ImageReader, findings: Findings) -> None:
    folder = split.images
    if folder is None:
        return
    sizes = [(width, height) if width and height else None for height, width in found.sizes.values()]
    paths = [folder / name for name in found.names.values()]
    checked = check_images(paths, reader, sizes, f"its entry in {found.path}")
    findings.error("images", *(each for each in checked.problems if each is not None))
    findings.warn("images", *(f"{split.name}: {warning}" for warning in checked.warnings))
    twice = [name for name, count in Counter(found.names.values()).items() if count > 1]
    findings.warn("images", *(f"{found.path}: several images are the file {name!r}" for name in twice))
