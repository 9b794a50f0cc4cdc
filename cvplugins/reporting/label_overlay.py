"""Draw label maps over their image, with a legend of the classes that occur."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["class_colours", "draw_label_overlay"]

SMALLEST_WIDTH = 320  # pixels of a panel: a smaller image is magnified
LINE, SWATCH, GAP = 18, 12, 6  # pixels of the legend


def class_colours(count: int) -> list[tuple[int, int, int]]:
    """Return up to 255 colours that differ, where a data set names none: those of PASCAL VOC's label maps.

    >>> class_colours(3)
    [(128, 0, 0), (0, 128, 0), (128, 128, 0)]
    """

    # The bits of the index, three at a time, are the bits of red, green and blue, the highest first.
    def _channel(index: int, first: int) -> int:
        return sum((index >> (3 * place + first) & 1) << (7 - place) for place in range(3))

    return [(_channel(index, 0), _channel(index, 1), _channel(index, 2)) for index in range(1, count + 1)]


def draw_label_overlay(
    image: NDArray[np.uint8],
    prediction: NDArray[Any],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    *,
    label: NDArray[Any] | None = None,
    opacity: float = 0.6,
) -> NDArray[np.uint8]:
    """Return the image, the prediction over it and the annotation over it side by side, with a legend below.

    Args:
        image: RGB, ``(H, W, 3)``.
        prediction: Class indices, ``(H, W)``; what is no class stays uncoloured.
        classes: Class names.
        palette: A colour for each class, RGB.
        label: The annotation, ``(H, W)``; no third panel if None.
        opacity: Of the colours, in [0, 1].

    Returns:
        RGB, uint8. The legend lists the classes of both label maps, the largest first, with their IoU in this image
        where there is an annotation (pixels that are no class in it do not count).

    Raises:
        ValueError: The shapes differ.
        ImportError: Pillow is missing.

    Example:
        >>> grey, halves = np.full((40, 40, 3), 128, np.uint8), np.arange(40)[None].repeat(40, 0) // 20
        >>> drawn = draw_label_overlay(grey, halves, ["left", "right"], [(255, 0, 0), (0, 0, 255)])
        >>> drawn.shape
        (368, 646, 3)
    """
    maps = [prediction] if label is None else [prediction, label]
    for each in maps:
        if each.shape != image.shape[:2]:
            raise ValueError(f"image {image.shape[:2]} and label map {each.shape} differ in size")
    colours = np.asarray(palette, np.float64)
    factor = -(-SMALLEST_WIDTH // image.shape[1])
    panels = [image, *(_tint(image, each, colours, opacity) for each in maps)]
    panels = [panel.repeat(factor, axis=0).repeat(factor, axis=1) for panel in panels]
    gap = np.full((len(panels[0]), GAP, 3), 255, np.uint8)
    row = np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)
    titles = _draw_titles(row.shape[1], panels[0].shape[1] + GAP, ("image", "prediction", "annotation")[: len(panels)])
    legend = _draw_legend(row.shape[1], _entries(prediction, label, classes), palette)
    return np.concatenate([titles, row, legend], axis=0)


def _tint(image: NDArray[np.uint8], labels: NDArray[Any], colours: NDArray[np.float64], opacity: float) -> Any:
    is_class = (labels >= 0) & (labels < len(colours))
    tinted = image.astype(np.float64)
    tinted[is_class] += opacity * (colours[labels[is_class].astype(int)] - tinted[is_class])
    return tinted.round().astype(np.uint8)


def _entries(prediction: NDArray[Any], label: NDArray[Any] | None, classes: Sequence[str]) -> list[tuple[int, str]]:
    """Return index and text of each class that occurs, the largest first."""
    areas = sum(_count(each, len(classes)) for each in (prediction, label) if each is not None)
    order = [int(index) for index in np.argsort(-np.asarray(areas), kind="stable") if np.asarray(areas)[index]]
    names = [name.strip() for name in classes]
    if label is None:
        return [(index, names[index]) for index in order]
    counted = np.where((label >= 0) & (label < len(classes)), prediction, -1)
    common = _count(np.where(counted == label, label, -1), len(classes))
    union = _count(counted, len(classes)) + _count(label, len(classes)) - common
    share = [f" {100 * common[index] / union[index]:.0f} %" if union[index] else "" for index in order]
    return [(index, names[index] + text) for index, text in zip(order, share, strict=True)]


def _count(labels: NDArray[Any], num_classes: int) -> NDArray[np.int64]:
    """Return the pixels of each class."""
    is_class = (labels >= 0) & (labels < num_classes)
    return np.bincount(labels[is_class].astype(np.int64), minlength=num_classes)


def _draw_titles(width: int, step: int, titles: Sequence[str]) -> NDArray[np.uint8]:
    """Return a white band with a title every ``step`` pixels."""
    image, draw_module, _ = _pillow()
    band = image.new("RGB", (width, LINE), "white")
    draw = draw_module.Draw(band)
    for place, title in enumerate(titles):
        draw.text((place * step + GAP, GAP // 2), title, fill="black")
    return np.asarray(band)


def _draw_legend(width: int, entries: Sequence[tuple[int, str]], palette: Sequence[Sequence[int]]) -> NDArray[np.uint8]:
    """Return a white band with a colour and a text for each entry, in lines as wide as allowed."""
    image, draw_module, font_module = _pillow()
    font = font_module.load_default()
    places, x, line = [], GAP, 0
    for _, text in entries:
        length = SWATCH + GAP + int(font.getlength(text)) + 3 * GAP
        if x + length > width and x > GAP:
            x, line = GAP, line + 1
        places.append((x, line * LINE + GAP))
        x += length
    band = image.new("RGB", (width, (line + 1) * LINE + 2 * GAP), "white")
    draw = draw_module.Draw(band)
    for (index, text), (left, top) in zip(entries, places, strict=True):
        draw.rectangle((left, top, left + SWATCH, top + SWATCH), fill=tuple(map(int, palette[index])), outline="black")
        draw.text((left + SWATCH + GAP, top), text, fill="black", font=font)
    return np.asarray(band)


def _pillow() -> tuple[Any, Any, Any]:
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise ImportError("drawing label maps needs Pillow: pip install pillow") from error
    return Image, ImageDraw, ImageFont
