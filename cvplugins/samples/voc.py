"""Draw the embedded sample: a small devkit in VOC's layout that a small detector learns in minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cvplugins.datasets.voc import VOC_CLASSES, VOCAnnotation, VOCObject

from .folders import whole_folder
from .glyphs import GLYPHS
from .painting import add_clutter, blend, draw_glyph, finish, on_canvas, write_jpeg

__all__ = ["draw_image", "write_sample"]

Array = NDArray[Any]

# Year, split, number of images, first id. An odd number of test images shows mistakes of distributed testing.
SPLITS = (
    ("VOC2007", "trainval", 140, "{:06d}", 1),
    ("VOC2007", "test", 91, "{:06d}", 141),
    ("VOC2012", "trainval", 60, "2012_{:06d}", 1),
)
SIZES = ((200, 150), (200, 150), (150, 200), (180, 160), (200, 132), (132, 200), (224, 144), (160, 160))
OBJECTS = (0.24, 0.30, 0.22, 0.14, 0.10)  # share of images with 1, 2, ... objects
SMALL = 0.22  # share of objects under SMALL_SIDE
SMALLEST_SIDE, SMALL_SIDE, LARGEST_SIDE = 16, 32, 110  # pixels
FAINT = 0.04  # share of objects with low contrast
DIFFICULT_BELOW, HIDDEN_BELOW = 0.6, 0.45  # visible share of an object


@dataclass
class _Drawn:
    """A placed object: how large it is in whole (box area and pixels), and where it is visible."""

    name: str
    faint: bool
    whole_area: int
    whole_pixels: int
    visible: Array

    @property
    def visible_share(self) -> float:
        return float(self.visible.sum()) / self.whole_pixels


def write_sample(root: str | Path, *, seed: int = 0, overwrite: bool = False) -> None:
    """Write the sample devkit: VOC2007 trainval and test, VOC2012 trainval; all of it or nothing.

    Equal seeds give equal annotations everywhere, and equal files with equal versions of Pillow's JPEG encoder.

    Args:
        root: The folder to make, such as ``data/sample/VOCdevkit``.
        seed: 0 or more.
        overwrite: Replace an older sample. No other folder is ever replaced.

    Raises:
        UserError: ``root`` exists and is not an older sample, or is one and ``overwrite`` is False.
        ImportError: Pillow is missing.
    """
    command = f"cvplugins sample voc --seed {seed}"
    with whole_folder(root, command=command, overwrite=overwrite) as new:
        for index, split in enumerate(SPLITS):
            # NumPy promises that RandomState never changes; of its newer generators it does not.
            _write_split(new, split, np.random.RandomState([seed, index]))


def _write_split(root: Path, split: tuple[str, str, int, str, int], random: np.random.RandomState) -> None:
    year, name, images, id_format, first = split
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / year / part).mkdir(parents=True, exist_ok=True)
    counts = random.choice(len(OBJECTS), images, p=OBJECTS) + 1
    counts[random.randint(images)] = 0
    # Dealt like cards, so that all classes are equally frequent.
    deck = iter([VOC_CLASSES[i] for _ in range(counts.sum()) for i in random.permutation(len(VOC_CLASSES))])
    ids = [id_format.format(first + i) for i in range(images)]
    for image_id, count in zip(ids, counts, strict=True):
        pixels, annotation = draw_image(f"{image_id}.jpg", [next(deck) for _ in range(count)], random)
        write_jpeg(root / year / "JPEGImages" / annotation.filename, pixels)
        (root / year / "Annotations" / f"{image_id}.xml").write_bytes(_to_xml(annotation, year))
    (root / year / "ImageSets" / "Main" / f"{name}.txt").write_text("".join(f"{image_id}\n" for image_id in ids))


def draw_image(
    filename: str, names: Sequence[str], random: np.random.RandomState
) -> tuple[NDArray[np.uint8], VOCAnnotation]:
    """Draw one image with an object of each named class; later ones may hide parts of earlier ones.

    Args:
        filename: What the annotation calls the image.
        names: Classes of `VOC_CLASSES`, back to front.
        random: Source of all variation.

    Returns:
        RGB, uint8 ``(H, W, 3)``, and the annotation. Boxes are tight around what is visible. An object for which no
        place is found is left out.

    Example:
        >>> pixels, annotation = draw_image("000001.jpg", ["dog", "car"], np.random.RandomState(0))
        >>> pixels.shape == (annotation.height, annotation.width, 3), [found.name for found in annotation.objects]
        (True, ['dog', 'car'])
    """
    width, height = SIZES[random.randint(len(SIZES))]
    pixels = _background(height, width, random)
    drawn: list[_Drawn] = []
    for name in names:
        _place(pixels, drawn, name, random)
    objects = tuple(_to_object(found) for found in drawn)
    return finish(pixels, random), VOCAnnotation(filename, width, height, objects)


def _place(pixels: Array, drawn: list[_Drawn], name: str, random: np.random.RandomState) -> None:
    """Paint an object where it hides no other one too much and is itself mostly inside."""
    height, width = pixels.shape[:2]
    for _ in range(20):
        rgb, coverage = draw_glyph(GLYPHS[name], _side(max(height, width), random), random)
        # Up to a fifth of it beyond the border.
        top = int(random.uniform(-0.2 * len(coverage), height - 0.8 * len(coverage)))
        left = int(random.uniform(-0.2 * coverage.shape[1], width - 0.8 * coverage.shape[1]))
        whole, opacity = coverage > 0.5, on_canvas(coverage, top, left, height, width)
        faint, area = bool(random.uniform() < FAINT), _area(_bounds(whole))
        new = _Drawn(name, faint, area, int(whole.sum()), opacity > 0.5)
        behind = [replace(found, visible=found.visible & ~new.visible) for found in drawn]
        if all(found.visible_share >= HIDDEN_BELOW for found in (*behind, new)):
            drawn[:] = [*behind, new]
            blend(pixels, on_canvas(rgb, top, left, height, width), opacity * (0.45 if faint else 1))
            return


def _side(image_side: int, random: np.random.RandomState) -> float:
    """Draw an object's longer side in pixels."""
    if random.uniform() < SMALL:
        return float(random.uniform(SMALLEST_SIDE, SMALL_SIDE))
    largest = min(LARGEST_SIDE, 0.62 * image_side)
    return float(np.exp(random.uniform(np.log(SMALL_SIDE), np.log(largest))))


def _background(height: int, width: int, random: np.random.RandomState) -> Array:
    """Two colours mixed by gradient, stripes or checkers and by noise of several scales; then unlabelled clutter."""
    y, x = np.indices((height, width))
    angle, period = random.uniform(0, np.pi), random.uniform(12, 50)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    pattern = (
        np.sin(along / max(height, width) * 3),
        np.sin(along * 2 * np.pi / period),
        np.sign(np.sin(along * 2 * np.pi / period) * np.sin(across * 2 * np.pi / period)),
    )[random.randint(3)]
    mix = random.uniform(0.1, 0.5) * pattern
    for sigma in (1, 3, 9, 27):
        noise = gaussian_filter(random.standard_normal((height, width)), sigma, mode="wrap")
        mix += noise / noise.std() * random.uniform(0.05, 0.3)
    first, second = random.uniform(40, 215, (2, 3))
    # Greyer than the objects, as in most photographs.
    first, second = 0.6 * first + 0.4 * first.mean(), 0.6 * second + 0.4 * second.mean()
    pixels: Array = first + (second - first) * (0.5 + 0.5 * mix)[..., None]
    for _ in range(random.randint(2, 9)):
        add_clutter(pixels, random)
    return pixels


def _to_object(found: _Drawn) -> VOCObject:
    """Annotate what is visible of an object; coordinates start at 1."""
    visible = _bounds(found.visible)
    truncated = _area(visible) < 0.95 * found.whole_area
    difficult = found.faint or found.visible_share < DIFFICULT_BELOW
    top, left, bottom, right = visible
    return VOCObject(found.name, left + 1, top + 1, right, bottom, difficult, truncated)


def _bounds(mask: Array) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _area(bounds: tuple[int, int, int, int]) -> int:
    return (bounds[2] - bounds[0]) * (bounds[3] - bounds[1])


def _to_xml(annotation: VOCAnnotation, folder: str) -> bytes:
    root = Element("annotation")
    _add(root, folder=folder, filename=annotation.filename)
    _add(SubElement(root, "source"), database="cvplugins sample", annotation="cvplugins sample", image="drawn")
    _add(SubElement(root, "size"), width=annotation.width, height=annotation.height, depth=3)
    _add(root, segmented=0)
    for found in annotation.objects:
        element = SubElement(root, "object")
        _add(element, name=found.name, pose=found.pose, truncated=int(found.truncated), difficult=int(found.difficult))
        box = SubElement(element, "bndbox")
        _add(box, xmin=found.xmin, ymin=found.ymin, xmax=found.xmax, ymax=found.ymax)
    indent(root, "\t")
    return bytes(tostring(root)) + b"\n"


def _add(parent: Element, **children: object) -> None:
    for tag, text in children.items():
        SubElement(parent, tag).text = str(text)
