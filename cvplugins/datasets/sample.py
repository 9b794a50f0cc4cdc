"""Draw the embedded sample: a small devkit in VOC's layout that a small detector learns in minutes."""

from __future__ import annotations

import argparse
import colorsys
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cvplugins.errors import UserError

from .glyphs import GLYPHS, Colour, Glyph, Shape, rasterise
from .voc import VOC_CLASSES, VOCAnnotation, VOCObject

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
MARKER = "drawn.txt"
JPEG_QUALITY = 85

COLOURS: dict[str, Colour] = {
    "black": (28, 28, 32),
    "white": (242, 242, 238),
    "grey": (150, 152, 155),
    "glass": (175, 215, 235),
    "red": (205, 40, 45),
    "orange": (240, 140, 30),
    "yellow": (250, 225, 90),
    "green": (40, 130, 70),
    "blue": (40, 55, 120),
    "pink": (240, 150, 165),
    "skin": (235, 190, 155),
    "terracotta": (190, 95, 60),
}


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
    root = Path(root)
    if root.exists() and not (overwrite and (root / MARKER).is_file()):
        hint = "--force replaces it" if (root / MARKER).is_file() else "it is not a sample; choose another folder"
        raise UserError(f"{root} exists; {hint}")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as temporary:
        new = Path(temporary, "new")
        for index, split in enumerate(SPLITS):
            # NumPy promises that RandomState never changes; of its newer generators it does not.
            _write_split(new, split, np.random.RandomState([seed, index]))
        (new / MARKER).write_text(f"python -m cvplugins.datasets.sample --seed {seed}\n")
        if root.exists():
            root.rename(Path(temporary, "old"))
        new.rename(root)


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
        _write_jpeg(root / year / "JPEGImages" / annotation.filename, pixels)
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
    return _finish(pixels, random), VOCAnnotation(filename, width, height, objects)


def _finish(pixels: Array, random: np.random.RandomState) -> NDArray[np.uint8]:
    """Add what a camera adds: blur, exposure and noise."""
    blur = random.choice([0, 0.5, 0.8])
    pixels = gaussian_filter(pixels, (blur, blur, 0)) * random.uniform(0.8, 1.1)
    pixels = pixels + random.standard_normal(pixels.shape) * random.uniform(1, 5)
    return pixels.clip(0, 255).astype(np.uint8)


def _place(pixels: Array, drawn: list[_Drawn], name: str, random: np.random.RandomState) -> None:
    """Paint an object where it hides no other one too much and is itself mostly inside."""
    height, width = pixels.shape[:2]
    for _ in range(20):
        rgb, coverage = _draw_glyph(GLYPHS[name], _side(max(height, width), random), random)
        # Up to a fifth of it beyond the border.
        top = int(random.uniform(-0.2 * len(coverage), height - 0.8 * len(coverage)))
        left = int(random.uniform(-0.2 * coverage.shape[1], width - 0.8 * coverage.shape[1]))
        whole, opacity = coverage > 0.5, _on_canvas(coverage, top, left, height, width)
        faint, area = bool(random.uniform() < FAINT), _area(_bounds(whole))
        new = _Drawn(name, faint, area, int(whole.sum()), opacity > 0.5)
        behind = [replace(found, visible=found.visible & ~new.visible) for found in drawn]
        if all(found.visible_share >= HIDDEN_BELOW for found in (*behind, new)):
            drawn[:] = [*behind, new]
            _blend(pixels, _on_canvas(rgb, top, left, height, width), opacity * (0.45 if faint else 1))
            return


def _side(image_side: int, random: np.random.RandomState) -> float:
    """Draw an object's longer side in pixels."""
    if random.uniform() < SMALL:
        return float(random.uniform(SMALLEST_SIDE, SMALL_SIDE))
    largest = min(LARGEST_SIDE, 0.62 * image_side)
    return float(np.exp(random.uniform(np.log(SMALL_SIDE), np.log(largest))))


def _on_canvas(tile: Array, top: int, left: int, height: int, width: int) -> Array:
    """Return a canvas with the tile on it, cut where it leaves the canvas."""
    canvas = np.zeros((height, width, *tile.shape[2:]))
    tile = tile[max(0, -top) : height - top, max(0, -left) : width - left]
    top, left = max(0, top), max(0, left)
    canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return canvas


def _blend(pixels: Array, rgb: Array, opacity: Array) -> None:
    pixels += opacity[..., None] * (rgb - pixels)


def _draw_glyph(glyph: Glyph, side: float, random: np.random.RandomState) -> tuple[Array, Array]:
    """Rasterise a glyph, ``side`` pixels long, with its own colours, proportions, tilt and light."""
    hue, saturation, value = random.uniform(-0.03, 0.03), random.uniform(0.75, 1.1), random.uniform(0.75, 1.1)
    shade: Colour = (glyph.body[0] * 0.65, glyph.body[1] * 0.65, glyph.body[2] * 0.65)
    palette = {
        name: _shift(colour, hue, saturation, value)
        for name, colour in {**COLOURS, "body": glyph.body, "shade": shade}.items()
    }
    unit, stretch = side / max(glyph.width, glyph.height), random.uniform(0.88, 1.14)
    angle, mirrored = np.deg2rad(random.uniform(-12, 12)), bool(random.randint(2))
    rgb, coverage = rasterise(glyph, palette, (unit * stretch, unit / stretch), angle, mirrored=mirrored)
    light = np.linspace(random.uniform(0.8, 1.15), random.uniform(0.8, 1.15), len(rgb))[:, None, None]
    return rgb * light, coverage


def _shift(colour: Colour, hue: float, saturation: float, value: float) -> Colour:
    h, s, v = colorsys.rgb_to_hsv(*(channel / 255 for channel in colour))
    r, g, b = colorsys.hsv_to_rgb((h + hue) % 1, min(1, s * saturation), min(1, v * value))
    return r * 255, g * 255, b * 255


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
        _add_clutter(pixels, random)
    return pixels


def _add_clutter(pixels: Array, random: np.random.RandomState) -> None:
    """Paint a random polygon, ring or stick that belongs to no class."""
    turns = np.sort(random.uniform(0, 2 * np.pi, random.randint(3, 8)))
    radii = random.uniform(20, 50, len(turns))
    outline = np.stack([50 + radii * np.cos(turns), 50 + radii * np.sin(turns)], axis=1)
    shapes = (
        (Shape("body", "poly", tuple(outline.ravel())),),
        (Shape("body", "oval", (50, 50, 48, 40)), Shape("none", "oval", (50, 50, 30, 24))),
        (Shape("body", "line", (random.uniform(4, 14), *outline[:3].ravel())),),
    )[random.randint(3)]
    r, g, b = random.uniform(20, 235, 3)
    scale = random.uniform(8, 60) / 100
    rgb, coverage = rasterise(Glyph(100, 100, (r, g, b), shapes), {"body": (r, g, b)}, (scale, scale), 0)
    height, width = pixels.shape[:2]
    top, left = random.randint(height) - len(rgb) // 2, random.randint(width) - len(rgb) // 2
    opacity = _on_canvas(coverage, top, left, height, width) * random.uniform(0.4, 1)
    _blend(pixels, _on_canvas(rgb, top, left, height, width), opacity)


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


def _write_jpeg(path: Path, pixels: NDArray[np.uint8]) -> None:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("writing images needs Pillow: pip install pillow") from error
    Image.fromarray(pixels).save(path, quality=JPEG_QUALITY)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m cvplugins.datasets.sample", description=__doc__)
    parser.add_argument("root", type=Path, help="the folder to make, such as data/sample/VOCdevkit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--force", action="store_true", help="replace an older sample")
    options = parser.parse_args(arguments)
    try:
        write_sample(options.root, seed=options.seed, overwrite=options.force)
    except UserError as error:
        parser.error(str(error))
    files = [path for path in options.root.rglob("*") if path.is_file()]
    images = sum(path.suffix == ".jpg" for path in files)
    size = sum(path.stat().st_size for path in files) / 1e6
    sys.stdout.write(f"{options.root}: {images} images, {len(files)} files, {size:.1f} MB\n")


if __name__ == "__main__":
    main()
