"""The ground truth of detections, from COCO's or PASCAL VOC's annotations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvplugins.datasets import (
    VOC_CLASSES,
    ClassCounts,
    CocoAnnotations,
    DataError,
    check_spelling,
    read_annotation,
    read_coco_annotations,
    read_split,
    voc_truth,
)

__all__ = ["Truths", "read_truths"]


@dataclass(frozen=True)
class Truths:
    """The ground truth of every image.

    Attributes:
        classes: Class names, whose places are the labels.
        images: Of each image, by its number or name: ``truth_boxes``, ``truth_labels`` and what else
            :class:`cvplugins.metrics.ImageDetections` takes.
        coco: The annotation file, if it is COCO's, for masks and for the numbers of categories.
    """

    classes: tuple[str, ...]
    images: dict[int | str, dict[str, Any]]
    coco: CocoAnnotations | None = None


def read_truths(
    annotations: str | os.PathLike[str], *, split: str | None = None, classes: Sequence[str] | None = None
) -> Truths:
    """Read annotations: a JSON file in COCO's format, or a folder such as ``VOCdevkit/VOC2007``.

    Boxes of PASCAL VOC are moved so that the first pixel is 0, as mmdet has them.

    Args:
        annotations: File or folder.
        split: Which list of a VOC folder, such as ``"test"``.
        classes: Names of the classes; all of a JSON file, or VOC's 20, if None. Objects of others are left out.

    Raises:
        DataError: Annotations are missing or broken, a split is missing or in vain, or a name is misspelt.
    """
    path = Path(annotations)
    if path.suffix == ".json":
        if split is not None:
            raise DataError(f"{path}: a COCO file has no split {split!r}; leave --split out")
        coco = read_coco_annotations(path, classes)
        if not coco.classes:
            raise DataError(f"{path}: has no categories")
        return Truths(coco.classes, {image: found.as_truth() for image, found in coco.images.items()}, coco)
    if not (path / "Annotations").is_dir():
        raise DataError(f"{path}: neither a .json file nor a folder of PASCAL VOC's layout, with Annotations in it")
    if split is None:
        lists = sorted(each.stem for each in (path / "ImageSets" / "Main").glob("*.txt"))
        raise DataError(f"{path}: which images? Give --split; there are {', '.join(lists) or 'none'}")
    names = tuple(VOC_CLASSES if classes is None else classes)
    images = read_split(path.parent, path.name, split)
    files = {image: path / "Annotations" / f"{image}.xml" for image in images}
    found = {image: read_annotation(file, names) for image, file in files.items()}
    counts = ClassCounts()
    for image, annotation in found.items():
        for each in annotation.objects:
            counts.add(each.name, usable=not each.difficult)
        for name in annotation.others:
            counts.leave_out(name, str(files[image]))
    check_spelling(names, counts, f"{path}, {split}")
    return Truths(names, {image: voc_truth(annotation, names) for image, annotation in found.items()})
