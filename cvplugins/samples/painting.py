"""What the drawn samples share: painting glyphs and clutter, and what a camera adds."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from .glyphs import Colour, Glyph, Shape, rasterise

__all__ = ["add_clutter", "blend", "draw_glyph", "finish", "on_canvas", "write_jpeg"]

Array = NDArray[Any]

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


def finish(pixels: Array, random: np.random.RandomState) -> NDArray[np.uint8]:
    """Add what a camera adds: blur, exposure and noise."""
    blur = random.choice([0, 0.5, 0.8])
    pixels = gaussian_filter(pixels, (blur, blur, 0)) * random.uniform(0.8, 1.1)
    pixels = pixels + random.standard_normal(pixels.shape) * random.uniform(1, 5)
    return pixels.clip(0, 255).astype(np.uint8)


def on_canvas(tile: Array, top: int, left: int, height: int, width: int) -> Array:
    """Return a canvas with the tile on it, cut where it leaves the canvas."""
    canvas = np.zeros((height, width, *tile.shape[2:]))
    tile = tile[max(0, -top) : height - top, max(0, -left) : width - left]
    top, left = max(0, top), max(0, left)
    canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return canvas


def blend(pixels: Array, rgb: Array, opacity: Array) -> None:
    """Paint ``rgb`` over ``pixels`` in place."""
    pixels += opacity[..., None] * (rgb - pixels)


def draw_glyph(glyph: Glyph, side: float, random: np.random.RandomState) -> tuple[Array, Array]:
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


def add_clutter(pixels: Array, random: np.random.RandomState) -> Array:
    """Paint a random polygon, ring or stick that belongs to no class; return its opacity, ``(H, W)``."""
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
    opacity = on_canvas(coverage, top, left, height, width) * random.uniform(0.4, 1)
    blend(pixels, on_canvas(rgb, top, left, height, width), opacity)
    return opacity


def write_jpeg(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write RGB as a JPEG image.

    Raises:
        ImportError: Pillow is missing.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("writing images needs Pillow: pip install pillow") from error
    Image.fromarray(pixels).save(path, quality=JPEG_QUALITY)
