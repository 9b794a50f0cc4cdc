"""What a split holds, as columns: its objects, or the pixels of its label maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvplugins.datasets.checking.label_split import class_names
from cvplugins.datasets.checking.voc_split import EVERY_NAME
from cvplugins.datasets.coco import read_coco_annotations
from cvplugins.datasets.image_lists import read_image_list
from cvplugins.datasets.image_readers import ImageReader, read_headers
from cvplugins.datasets.label_images import SceneReader, count_labels
from cvplugins.datasets.layouts import DataSplit
from cvplugins.datasets.voc import VOCAnnotation, read_annotation
from cvplugins.datasets.voc_boxes import voc_edges
from cvplugins.errors import DataError

__all__ = ["SplitContent", "merge_contents", "read_content"]


@dataclass(frozen=True)
class SplitContent:
    """The M images of a split and their N objects; of label maps the pixels of each class.

    Attributes:
        name: Of the split.
        classes: Names; the places are the labels.
        sizes: Width and height of each image, 0 where they are unknown, ``(M, 2)``.
        image: The image of each object, ``(N,)``.
        label: Its class, ``(N,)``.
        boxes: ``xyxy``, right and lower sides not part of the box, ``(N, 4)``.
        areas: Pixels of each object: of its mask if the file says, else of its box, ``(N,)``.
        difficult: Which of them are difficult, ``(N,)``.
        crowd: Which of them stand for many, ``(N,)``.
        pixels: Of each class in each label map, ``(M, C)``; None for objects.
        ignored: Pixels of no class in each label map, ``(M,)``; None for objects.
        broken: What could not be read and is left out.
        uncounted: Pixels by which a rule for the smallest size sees a side shorter: such rules measure the boxes of VOC
            from the first to the last pixel.
    """

    name: str
    classes: tuple[str, ...]
    sizes: NDArray[np.int64]
    image: NDArray[np.int64]
    label: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    difficult: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    pixels: NDArray[np.int64] | None = None
    ignored: NDArray[np.int64] | None = None
    broken: tuple[str, ...] = ()
    uncounted: int = 0

    @property
    def presence(self) -> NDArray[np.bool_]:
        """Which classes are in which image, ``(M, C)``."""
        if self.pixels is not None:
            return np.asarray(self.pixels > 0)
        found = np.zeros((len(self.sizes), len(self.classes)), bool)
        found[self.image, self.label] = True
        return found

    @property
    def counts(self) -> NDArray[np.int64]:
        """Objects of each class, or pixels of label maps, ``(C,)``."""
        if self.pixels is not None:
            return np.asarray(self.pixels.sum(axis=0))
        return np.bincount(self.label, minlength=len(self.classes)).astype(np.int64)

    @property
    def counts_where_present(self) -> NDArray[np.int64]:
        """Objects or pixels of any class in the images in which a class is, ``(C,)``."""
        per_image = (
            np.bincount(self.image, minlength=len(self.sizes)) if self.pixels is None else self.pixels.sum(axis=1)
        )
        return np.asarray(per_image.astype(np.int64) @ self.presence.astype(np.int64))

    @property
    def samples(self) -> NDArray[np.int64]:
        """Objects of each class, or images with it, because pixels are no samples of their own, ``(C,)``."""
        return self.counts if self.pixels is None else np.asarray(self.presence.sum(axis=0, dtype=np.int64))


def read_content(
    split: DataSplit, classes: Sequence[str] | None = None, reduce_zero_label: bool = False
) -> SplitContent:
    """Read a split; what is broken is left out and named.

    Args:
        split: What :func:`cvplugins.datasets.layouts.find_splits` found.
        classes: Names of the classes; those that occur if None, in the order of the alphabet, of the file or of the
            labels.
        reduce_zero_label: Whether 0 means "no class" in label maps.

    Raises:
        DataError: The list or the annotation file cannot be read.
    """
    if split.source is not None:
        return _read_voc(split, classes)
    if split.annotations is not None:
        return _read_coco(split, classes)
    return _read_label_maps(split, classes, reduce_zero_label)


def merge_contents(contents: Sequence[SplitContent], others: Sequence[SplitContent] = ()) -> SplitContent:
    """Return several splits as one, with the classes of all of them.

    Args:
        contents: At least one; of one layout.
        others: Splits whose classes are classes too, although their images are not counted.
    """
    first = contents[0]
    known = dict.fromkeys(name for each in (*contents, *others) for name in each.classes)
    # Names in the order of the alphabet, or labels in that of numbers, stay in it.
    is_sorted = all(list(each.classes) == sorted(each.classes) for each in (*contents, *others))
    if first.pixels is not None and all(name.isdecimal() for name in known):
        classes = tuple(sorted(known, key=int))
    else:
        classes = tuple(sorted(known) if is_sorted and first.pixels is None else known)
    place = {name: number for number, name in enumerate(classes)}
    starts = np.cumsum([0, *(len(each.sizes) for each in contents)])
    pixels = None
    if first.pixels is not None:
        pixels = np.zeros((int(starts[-1]), len(classes)), np.int64)
        for start, each in zip(starts, contents, strict=False):
            if each.pixels is not None:
                pixels[start : start + len(each.sizes), [place[name] for name in each.classes]] = each.pixels
    labels = [np.array([place[name] for name in each.classes], np.int64)[each.label] for each in contents]

    def joined(key: str) -> Any:
        return np.concatenate([getattr(each, key) for each in contents])

    return SplitContent(
        " + ".join(each.name for each in contents),
        classes,
        joined("sizes"),
        np.concatenate([each.image + start for start, each in zip(starts, contents, strict=False)]),
        np.concatenate(labels),
        joined("boxes"),
        joined("areas"),
        joined("difficult"),
        joined("crowd"),
        pixels,
        None if first.ignored is None else joined("ignored"),
        tuple(message for each in contents for message in each.broken),
        first.uncounted,
    )


def _read_voc(split: DataSplit, classes: Sequence[str] | None) -> SplitContent:
    source = split.source
    if source is None:
        raise ValueError("the split is not of VOC's layout")
    found: list[tuple[str, VOCAnnotation]] = []
    broken = []
    for image_id in read_image_list(source.image_list, source.annotations).ids:
        try:
            path = source.annotations / f"{image_id}.xml"
            found.append((image_id, read_annotation(path, EVERY_NAME if classes is None else classes)))
        except DataError as error:
            broken.append(str(error))
    names = classes or sorted({each.name for _, annotation in found for each in annotation.objects})
    places = {name: place for place, name in enumerate(names)}
    objects = [(image, each) for image, (_, annotation) in enumerate(found) for each in annotation.objects]
    corners = [voc_edges(each.xmin, each.ymin, each.xmax, each.ymax) for _, each in objects]
    boxes = np.array(corners, np.float64).reshape(-1, 4)
    unknown = [source.image(image_id) for image_id, each in found if not each.width or not each.height]
    by_header = _header_sizes(unknown)
    sizes = [
        (each.width, each.height) if each.width and each.height else by_header[source.image(image_id)]
        for image_id, each in found
    ]
    return SplitContent(
        split.name,
        tuple(names),
        np.array(sizes, np.int64).reshape(-1, 2),
        np.array([image for image, _ in objects], np.int64),
        np.array([places[each.name] for _, each in objects], np.int64),
        boxes,
        (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
        np.array([each.difficult for _, each in objects], bool),
        np.zeros(len(objects), bool),
        broken=tuple(broken),
        uncounted=1,
    )


def _read_coco(split: DataSplit, classes: Sequence[str] | None) -> SplitContent:
    if split.annotations is None:
        raise ValueError("the split is not of COCO's layout")
    found = read_coco_annotations(split.annotations, classes)
    objects = list(found.images.values())

    def column(key: str, width: int = 0) -> NDArray[np.float64]:
        empty = np.zeros((0, width) if width else 0)
        return np.concatenate([empty, *(getattr(each, key) for each in objects)])

    return SplitContent(
        split.name,
        found.classes,
        np.array([found.sizes[image][::-1] for image in found.images], np.int64).reshape(-1, 2),
        np.repeat(np.arange(len(objects)), [len(each.labels) for each in objects]),
        column("labels").astype(np.int64),
        column("boxes", 4),
        column("areas"),
        np.zeros(sum(len(each.labels) for each in objects), bool),
        column("crowd").astype(bool),
    )


def _read_label_maps(split: DataSplit, classes: Sequence[str] | None, reduce_zero_label: bool) -> SplitContent:
    paths = [label for _, label in split.pairs]
    counted = count_labels(paths, SceneReader(label=ImageReader(turns="none")))
    whole = [(path, each) for path, each in zip(paths, counted, strict=True) if not isinstance(each, DataError)]
    occurring = {label: 1 for _, each in whole for label in each}
    names = class_names(occurring, classes, reduce_zero_label)
    pixels = np.array([[each.get(label, 0) for label in names] for _, each in whole], np.int64)
    pixels = pixels.reshape(len(whole), len(names))
    totals = np.array([sum(each.values()) for _, each in whole], np.int64)
    sizes = _header_sizes([path for path, _ in whole])
    none = np.zeros(0, np.int64)
    return SplitContent(
        split.name,
        tuple(names.values()),
        np.array([sizes[path] for path, _ in whole], np.int64).reshape(-1, 2),
        none,
        none,
        np.zeros((0, 4)),
        np.zeros(0),
        np.zeros(0, bool),
        np.zeros(0, bool),
        pixels,
        totals - pixels.sum(axis=1),
        tuple(str(each) for each in counted if isinstance(each, DataError)),
    )


def _header_sizes(paths: Sequence[Path]) -> dict[Path, tuple[int, int]]:
    """Return width and height of images; zeros where there is no header."""
    headers = read_headers(paths)
    return {
        path: (0, 0) if isinstance(header, DataError) else ImageReader().size(header)
        for path, header in zip(paths, headers, strict=True)
    }
