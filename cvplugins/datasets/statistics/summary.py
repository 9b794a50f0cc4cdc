"""The numbers of a split: per class, per image, and of its boxes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .content import SplitContent

__all__ = ["SIZE_EDGES", "DataStatistics", "summarize_content"]

SIZE_EDGES = (0.0, 32.0**2, 96.0**2, np.inf)  # COCO's small, medium and large
SHOWN = 5000  # boxes in a figure
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class DataStatistics:
    """What a split holds, for C classes.

    Attributes:
        name: Of the split.
        classes: Their names.
        images: How many images.
        images_with: Images in which a class is, ``(C,)``.
        objects: Objects of a class, ``(C,)``; zeros for label maps.
        pixels: Pixels of a class: of label maps, of masks where the file says, else of boxes, ``(C,)``.
        image_pixels: Pixels of all images in which a class is, ``(C,)``.
        cooccurrence: Images in which both classes are, ``(C, C)``.
        objects_per_image: How many images have 0, 1, 2, ... objects; of label maps, classes.
        empty_images: Images without an object, or without a pixel of any class.
        small_medium_large: Objects below 32 x 32 pixels, below 96 x 96, and the rest, ``(C, 3)``.
        widths: Quantiles of the widths of boxes, by their share.
        heights: The same of heights.
        ratios: The same of height over width.
        left_out: Objects that a rule leaves out, by the rule.
        ignored_pixels: Pixels of label maps that are of no class.
        broken: What could not be read.
        is_label_maps: Whether there are pixels instead of objects.
        box_sizes: Width and height of boxes, evenly spread over them, for a figure.
    """

    name: str
    classes: tuple[str, ...]
    images: int
    images_with: NDArray[np.int64]
    objects: NDArray[np.int64]
    pixels: NDArray[np.int64]
    image_pixels: NDArray[np.int64]
    cooccurrence: NDArray[np.int64]
    objects_per_image: NDArray[np.int64]
    empty_images: int
    small_medium_large: NDArray[np.int64]
    widths: dict[str, float] = field(default_factory=dict)
    heights: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    ignored_pixels: int = 0
    broken: tuple[str, ...] = ()
    is_label_maps: bool = False
    box_sizes: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)), repr=False)

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON has it, with the numbers of a class by its name."""
        per_class = {
            name: {
                "images": int(self.images_with[place]),
                "objects": int(self.objects[place]),
                "pixels": int(self.pixels[place]),
                "small_medium_large": self.small_medium_large[place].tolist(),
            }
            for place, name in enumerate(self.classes)
        }
        return {
            "name": self.name,
            "images": self.images,
            "empty_images": self.empty_images,
            "classes": per_class,
            "cooccurrence": self.cooccurrence.tolist(),
            "objects_per_image": self.objects_per_image.tolist(),
            "widths": self.widths,
            "heights": self.heights,
            "ratios": self.ratios,
            "left_out": self.left_out,
            "ignored_pixels": self.ignored_pixels,
            "broken": list(self.broken),
        }


def summarize_content(content: SplitContent, min_size: float = 32) -> DataStatistics:
    """Count what a split holds.

    Args:
        content: What :func:`read_content` returned.
        min_size: Boxes of a shorter side below this many pixels are counted as left out, because a config may have such
            a rule (``bbox_min_size``).
    """
    number, presence = len(content.classes), content.presence
    areas = content.sizes.prod(axis=1)
    width, height = (content.boxes[:, side + 2] - content.boxes[:, side] for side in (0, 1))
    kinds = np.digitize(content.areas, SIZE_EDGES[1:-1])
    by_size = np.zeros((number, 3), np.int64)
    np.add.at(by_size, (content.label, kinds), 1)
    if content.pixels is None:
        pixels = np.bincount(content.label, content.areas, number).round().astype(np.int64)
        each = np.bincount(content.image, minlength=len(content.sizes))
    else:
        pixels, each = content.pixels.sum(axis=0), presence.sum(axis=1)
    together = presence.astype(np.int64)
    whole = (width > 0) & (height > 0)
    return DataStatistics(
        content.name,
        content.classes,
        len(content.sizes),
        presence.sum(axis=0, dtype=np.int64),
        np.bincount(content.label, minlength=number).astype(np.int64),
        pixels,
        areas @ together if len(areas) else np.zeros(number, np.int64),
        together.T @ together,
        np.bincount(each).astype(np.int64),
        int((each == 0).sum()),
        by_size,
        _quantiles(width),
        _quantiles(height),
        _quantiles(height[whole] / width[whole]),
        {} if content.pixels is not None else _left_out(content, width, height, min_size),
        0 if content.ignored is None else int(content.ignored.sum()),
        content.broken,
        content.pixels is not None,
        np.stack([width, height], axis=1)[:: max(1, len(width) // SHOWN)],
    )


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return {}
    return {
        f"{share:.0%}": float(value) for share, value in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
    }


def _left_out(
    content: SplitContent, width: NDArray[np.float64], height: NDArray[np.float64], min_size: float
) -> dict[str, int]:
    shorter = np.minimum(width, height) - content.uncounted
    return {
        "difficult": int(content.difficult.sum()),
        "crowd": int(content.crowd.sum()),
        f"shorter side below {min_size:g}": int((shorter < min_size).sum()),
        "without width or height": int(((width <= 0) | (height <= 0)).sum()),
    }
