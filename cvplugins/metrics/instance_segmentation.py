"""Instance segmentation: the detection metric, with the overlaps of masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .detection import DetectionMetric
from .detection_errors import BACKGROUND_IOU
from .detection_rule import DetectionRule
from .instances import ImageId, Instances, checked_columns, joined
from .matching import Flags, Floats, Integers, Pairs

__all__ = ["ImageMasks", "InstanceSegmentationMetric", "encode_masks"]

Masks = ArrayLike | Sequence[Mapping[str, Any]]


def encode_masks(masks: Masks) -> list[dict[str, Any]]:
    """Return masks as run lengths (RLE), as pycocotools codes them.

    Args:
        masks: ``(N, H, W)``, anything but 0 is inside; or RLE already, compressed or not.

    Raises:
        ImportError: pycocotools is not installed.
        ValueError: The array has another number of dimensions.
    """
    try:
        from pycocotools import mask as coding
    except ImportError as error:
        raise ImportError("masks need pycocotools: pip install pycocotools") from error
    if isinstance(masks, Sequence) and all(isinstance(mask, Mapping) for mask in masks):
        given = [dict(mask) for mask in masks if isinstance(mask, Mapping)]
        compressed = (isinstance(mask["counts"], (str, bytes)) for mask in given)
        return [
            mask if done else coding.frPyObjects(mask, *mask["size"])
            for mask, done in zip(given, compressed, strict=True)
        ]
    array = np.asarray(masks)
    if array.ndim != 3:
        raise ValueError(f"masks have shape {array.shape}, expected (N, H, W)")
    encoded: list[dict[str, Any]] = coding.encode(np.asfortranarray((array != 0).transpose(1, 2, 0), np.uint8))
    return encoded


@dataclass(frozen=True)
class ImageMasks:
    """How the masks detected in one image overlap those that are there; the masks themselves are not kept.

    Make one by :meth:`from_masks`.

    Args:
        image_id: See :class:`cvplugins.metrics.ImageDetections`.
        scores: Confidence, any range, ``(D,)``.
        labels: Class indices, ``(D,)``.
        areas: Pixels of each detected mask, ``(D,)``.
        truth_labels: Class indices, ``(G,)``.
        difficult: Ground truths that need not be found, ``(G,)``; none if absent.
        crowd: Ground truths that stand for many objects, ``(G,)``; none if absent.
        truth_areas: Pixels of each ground truth, ``(G,)``.
        pairs: Detections and ground truths of whatever class that overlap by an IoU of more than 0.1.
    """

    image_id: ImageId
    scores: NDArray[Any]
    labels: NDArray[Any]
    areas: NDArray[Any]
    truth_labels: NDArray[Any]
    difficult: NDArray[Any] | None
    crowd: NDArray[Any] | None
    truth_areas: NDArray[Any]
    pairs: tuple[Integers, Integers, Floats]
    corners: ClassVar[None] = None  # of boxes

    def __post_init__(self) -> None:
        checked_columns(self)
        # A name for each field would not survive mmengine's gathering over ranks, which makes tuples of them.
        object.__setattr__(self, "pairs", tuple(self.pairs))

    @classmethod
    def from_masks(
        cls,
        image_id: ImageId,
        masks: Masks,
        scores: ArrayLike,
        labels: ArrayLike,
        truth_masks: Masks,
        truth_labels: ArrayLike,
        difficult: ArrayLike | None = None,
        crowd: ArrayLike | None = None,
        truth_areas: ArrayLike | None = None,
    ) -> ImageMasks:
        """Measure the overlaps of an image.

        Args:
            image_id: See the class.
            masks: Detections, ``(D, H, W)`` or RLE.
            scores: See the class.
            labels: See the class.
            truth_labels: See the class.
            difficult: See the class.
            crowd: See the class.
            truth_masks: Ground truth, ``(G, H, W)`` or RLE of the same size.
            truth_areas: Pixels of each ground truth for the size ranges, if not those of its mask.

        Raises:
            ValueError: Lengths or sizes do not fit each other; the message names the image.

        Example:
            >>> square = np.zeros((1, 4, 4), bool)
            >>> square[0, :2, :2] = True
            >>> ImageMasks.from_masks("a", square, [0.9], [0], square, [0]).pairs[2]
            array([1.])
        """
        found, truths = _encoded(image_id, masks), _encoded(image_id, truth_masks)
        for name, encoded, count in (("masks", found, labels), ("truth_masks", truths, truth_labels)):
            if len(encoded) != np.size(count):
                raise ValueError(f"image {image_id}: {name} holds {len(encoded)}, expected {np.size(count)}")
        sizes = {tuple(mask["size"]) for mask in (*found, *truths)}
        if len(sizes) > 1:
            raise ValueError(f"image {image_id}: masks have different sizes: {sorted(sizes)}")
        from pycocotools import mask as coding

        crowds = np.zeros(len(truths), bool) if crowd is None else np.asarray(crowd, bool)
        overlaps = np.zeros((len(found), len(truths)))
        if overlaps.size:
            overlaps = coding.iou(found, truths, crowds.astype(np.uint8))
        detection, truth = np.nonzero(overlaps > BACKGROUND_IOU)
        return cls(
            image_id=image_id,
            scores=np.asarray(scores),
            labels=np.asarray(labels),
            areas=coding.area(found).astype(np.float64) if found else np.zeros(0),
            truth_labels=np.asarray(truth_labels),
            difficult=None if difficult is None else np.asarray(difficult),
            crowd=crowds,
            truth_areas=np.asarray(
                truth_areas if truth_areas is not None else coding.area(truths) if truths else np.zeros(0), np.float64
            ),
            pairs=(detection, truth, overlaps[detection, truth]),
        )


def _encoded(image_id: ImageId, masks: Masks) -> list[dict[str, Any]]:
    if isinstance(masks, Sequence) and not len(masks):
        return []
    try:
        return encode_masks(masks)
    except ValueError as error:
        raise ValueError(f"image {image_id}: {error}") from error


@dataclass(frozen=True)
class _MaskInstances(Instances):
    """Instances whose overlaps and sizes are known."""

    near: Pairs
    area: Floats
    truth_area: Floats

    @classmethod
    def of(cls, images: Sequence[ImageMasks]) -> _MaskInstances:
        counts, truth_counts = ([len(getattr(each, name)) for each in images] for name in ("labels", "truth_labels"))
        starts = zip(np.cumsum([0, *counts]), np.cumsum([0, *truth_counts]), strict=True)
        near = [
            (each.pairs[0] + start, each.pairs[1] + truth_start, each.pairs[2])
            for each, (start, truth_start) in zip(images, starts, strict=False)
        ]
        detection, truth, iou = (joined(column) for column in zip(*near, strict=True)) if near else [np.zeros(0)] * 3
        return cls(
            num_images=len(images),
            image=np.repeat(np.arange(len(images)), counts),
            label=joined(each.labels for each in images).astype(np.int64, copy=False),
            score=joined(each.scores for each in images),
            truth_image=np.repeat(np.arange(len(images)), truth_counts),
            truth_label=joined(each.truth_labels for each in images).astype(np.int64, copy=False),
            difficult=joined(each.difficult for each in images).astype(bool, copy=False),
            crowd=joined(each.crowd for each in images).astype(bool, copy=False),
            near=Pairs(detection.astype(np.int64), truth.astype(np.int64), iou),
            area=joined(each.areas for each in images),
            truth_area=joined(each.truth_areas for each in images),
        )

    def pairs(
        self,
        rule: DetectionRule,
        enough: Callable[[Floats], Flags],
        chosen: Integers,
        num_classes: int = 0,
        lowest_iou: float = 0.0,
    ) -> Pairs:
        """See :meth:`Instances.pairs`; the rule's geometry of boxes does not matter."""
        wanted = np.zeros(len(self.label), bool)
        wanted[chosen] = True
        keep = wanted[self.near.detection] & enough(self.near.iou)
        if num_classes:
            keep &= self.label[self.near.detection] == self.truth_label[self.near.truth]
        return self.near.where(keep)

    def areas(self, rule: DetectionRule) -> tuple[Floats, Floats]:
        """See :meth:`Instances.areas`."""
        return self.area, self.truth_area


class InstanceSegmentationMetric(DetectionMetric):
    """Average precision and recall of masks, and all else that :class:`DetectionMetric` gives of boxes.

    An overlap is the IoU of two masks, for a crowd the share of the detected mask inside it. The state is the overlaps
    of every image, not the masks.

    Args:
        classes: Class names, at least one.
        rules: See :class:`DetectionMetric`; ``"coco"`` equals pycocotools with ``"segm"``. What they say about the
            geometry of boxes does not matter here.
        score_threshold: Where to measure precision, recall, F1, the IoU of matched pairs and errors.

    Raises:
        ValueError: As :class:`DetectionMetric`, or an IoU threshold is not above 0.1.

    Example:
        >>> square = np.zeros((1, 4, 4), bool)
        >>> square[0, :2, :2] = True
        >>> metric = InstanceSegmentationMetric(["cat"])
        >>> metric.update(ImageMasks.from_masks("a", square, [0.9], [0], square, [0]))
        >>> metric.compute().scalars()["AP"]
        1.0
    """

    def __init__(
        self,
        classes: Sequence[str],
        rules: str | Sequence[str | DetectionRule | Mapping[str, Any]] = ("coco",),
        score_threshold: float = 0.5,
    ) -> None:
        super().__init__(classes, rules, score_threshold)
        for rule in self.rules:
            if rule.iou_thresholds[0] <= BACKGROUND_IOU:
                raise ValueError(f"rule {rule.name}: masks need IoU thresholds above {BACKGROUND_IOU}")

    def update(self, image: ImageMasks) -> None:  # type: ignore[override]
        """Add one image; see :meth:`DetectionMetric.update`."""
        super().update(image)  # type: ignore[arg-type]

    def _instances(self) -> Instances:
        return _MaskInstances.of(self._ordered())
