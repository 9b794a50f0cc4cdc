"""Detections in the pickle of a test: a list of images, each with ``img_id`` and ``pred_instances``."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvplugins.datasets import DataError
from cvplugins.datasets.coco_masks import encoded_segmentations
from cvplugins.datasets.regular_files import read_bytes
from cvplugins.datasets.typed_json import shown
from cvplugins.errors import first_line

from .truths import Truths

__all__ = ["read_pickled_detections"]


def read_pickled_detections(path: Path, truths: Truths, *, masks: bool = True) -> dict[int | str, dict[str, Any]]:
    """Open a pickle, which the caller trusts, and return what was detected in each image.

    Labels count by the file's categories; where an entry has ``category_ids``, these are the ids of its labels.

    Args:
        path: What mmdet's ``tools/test.py --out`` and ours write.
        truths: The annotations that they belong to.
        masks: Whether masks are read, where there are any.

    Raises:
        DataError: The file cannot be opened, or an entry is not as it should be; the message names the entry.
    """
    content = read_bytes(path, "pickle")
    try:
        samples = pickle.loads(content)
    except Exception as error:  # unpickling raises whatever the code in it raises
        raise DataError(f"{path}: cannot be opened: {first_line(error)}") from error
    if not isinstance(samples, list):
        raise DataError(f"{path}: holds a {type(samples).__name__}; expected a list of predictions")
    by_label = [sample for sample in samples if isinstance(sample, Mapping) and "category_ids" not in sample]
    if by_label and truths.coco is not None and not truths.coco.in_file_order:
        raise DataError(
            f"{path}: its labels count by the categories of {truths.coco.path}; give the classes in their order"
        )
    images: dict[Any, dict[str, Any]] = {}
    for number, sample in enumerate(samples):
        place = f"{path}: entry {number}"
        if not isinstance(sample, Mapping) or not isinstance(sample.get("pred_instances"), Mapping):
            raise DataError(f"{place} has no pred_instances; expected a mapping with img_id and pred_instances")
        image: Any = sample.get("img_id")
        if not isinstance(image, (int, str, np.integer)) or image not in truths.images:
            raise DataError(f"{place} is of image {image!r}, which the annotations do not list")
        if image in images:
            raise DataError(f"{place} is of image {image!r}, as an entry before is")
        images[image] = _instances(place, image, sample, truths, masks)
    return images


def _instances(place: str, image: Any, sample: Mapping[str, Any], truths: Truths, masks: bool) -> dict[str, Any]:
    own = sample["pred_instances"]
    masks = masks and "masks" in own
    score = "mask_scores" if masks and "mask_scores" in own else "scores"
    boxes, scores, labels = (_array(place, own, key) for key in ("bboxes", score, "labels"))
    count = len(labels) if labels.ndim else 0
    for name, array, shape in (("bboxes", boxes, (count, 4)), (score, scores, (count,)), ("labels", labels, (count,))):
        if array.shape != shape and (count or array.size):
            raise DataError(f"{place}: {name} have the shape {array.shape}; expected {shape}")
        if not np.isfinite(array).all():
            raise DataError(f"{place}: {name} hold a number that is not finite")
    label_of = _labels(place, sample.get("category_ids"), truths)
    wrong = [label for label in labels.tolist() if label not in range(len(label_of))]
    if wrong:
        raise DataError(f"{place} has the label {wrong[0]}; there are {len(label_of)} classes, from 0")
    labels = label_of[labels.astype(np.int64).reshape(-1)]
    kept = np.flatnonzero(labels >= 0)
    found: dict[str, Any] = {
        "boxes": boxes.reshape(-1, 4)[kept],
        "scores": scores.reshape(-1)[kept],
        "labels": labels[kept],
    }
    if masks:
        found["masks"] = _masks(place, image, own["masks"], count, kept, truths)
    return found


def _labels(place: str, ids: Sequence[int | str] | None, truths: Truths) -> NDArray[np.int64]:
    """Return the label among the annotations' classes of each label of an entry; -1 for classes that are not asked."""
    if ids is None or truths.coco is None:
        return np.arange(len(truths.classes))
    label_of = dict.fromkeys(truths.coco.others, -1) | {each: i for i, each in enumerate(truths.coco.category_ids)}
    unknown = [each for each in ids if each not in label_of]
    if unknown:
        raise DataError(f"{place} has the category {shown(unknown[0])}, which {truths.coco.path} does not have")
    return np.array([label_of[each] for each in ids], np.int64)


def _array(place: str, own: Mapping[str, Any], key: str) -> NDArray[Any]:
    if key not in own:
        raise DataError(f"{place} has no {key!r} in its pred_instances")
    try:
        array = np.asarray(own[key])
    except (TypeError, ValueError, RuntimeError) as error:  # a tensor on a GPU, ragged lists, a tensor with gradients
        raise DataError(f"{place}: {key} are no array: {first_line(error)}") from error
    if array.dtype.kind not in "iuf":
        raise DataError(f"{place}: {key} are of {array.dtype}; expected numbers")
    return array


def _masks(place: str, image: Any, masks: Any, count: int, kept: NDArray[np.int64], truths: Truths) -> Any:
    """Return run lengths that are checked, or an array."""
    if len(masks) != count:
        raise DataError(f"{place}: has {len(masks)} masks, but {count} labels")
    if not isinstance(masks, (list, tuple)):
        return np.asarray(masks)[kept]
    height, width = truths.coco.sizes[image] if truths.coco is not None else (0, 0)
    runs = [masks[index] for index in kept.tolist()]
    for each in runs:
        if (
            not isinstance(each, Mapping)
            or not isinstance(each.get("counts"), (bytes, str, list))
            or "size" not in each
        ):
            raise DataError(f"{place}: masks hold {shown(each)}; expected run lengths with size and counts")
    return encoded_segmentations(runs, height, width, lambda index: f"{place}: masks[{kept[index]}]")
