"""Drawings of the 20 VOC classes, and their rasteriser. NumPy alone, so that every version draws the same pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["GLYPHS", "Colour", "Glyph", "Shape", "rasterise"]

Array = NDArray[Any]
Colour = tuple[float, float, float]

SAMPLES = 3  # per pixel and direction


@dataclass(frozen=True)
class Shape:
    """A filled shape: ``box`` x y x y, ``oval`` cx cy rx ry, ``poly`` x y ..., ``line`` width x y ...

    The colour ``none`` cuts a hole.
    """

    colour: str
    kind: str
    numbers: tuple[float, ...]


@dataclass(frozen=True)
class Glyph:
    """Shapes on a grid of ``width`` by ``height`` units, painted in order; ``body`` is the colour of that name."""

    width: float
    height: float
    body: Colour
    shapes: tuple[Shape, ...]


def rasterise(
    glyph: Glyph, palette: Mapping[str, Colour], scale: tuple[float, float], angle: float, *, mirrored: bool = False
) -> tuple[Array, Array]:
    """Draw a glyph with smooth edges.

    Args:
        glyph: What to draw.
        palette: RGB of each colour that the glyph names.
        scale: Pixels per unit, horizontally and vertically.
        angle: Rotation in radians.
        mirrored: Swap left and right.

    Returns:
        RGB, float64 ``(H, W, 3)``, and coverage in [0, 1], float64 ``(H, W)``. The tile holds the whole rotated grid.

    Example:
        >>> square = Glyph(2, 2, (9, 9, 9), (Shape("body", "box", (0, 0, 2, 2)),))
        >>> rgb, coverage = rasterise(square, {"body": (9, 9, 9)}, (1, 1), 0)
        >>> rgb.shape, float(coverage.sum())
        ((2, 2, 3), 4.0)
    """
    cosine, sine = np.cos(angle), np.sin(angle)
    width, height = glyph.width * scale[0], glyph.height * scale[1]
    columns = int(np.ceil(abs(width * cosine) + abs(height * sine)))
    rows = int(np.ceil(abs(width * sine) + abs(height * cosine)))
    v, u = (np.indices((rows * SAMPLES, columns * SAMPLES)) + 0.5) / SAMPLES
    u, v = u - columns / 2, v - rows / 2
    x = (u * cosine + v * sine) / scale[0]
    y = (v * cosine - u * sine) / scale[1] + glyph.height / 2
    x = glyph.width / 2 + (-x if mirrored else x)

    rgba = np.zeros((*x.shape, 4))
    for shape in glyph.shapes:
        colour = (0, 0, 0, 0) if shape.colour == "none" else (*palette[shape.colour], 1)
        rgba[_inside(shape, x, y)] = colour
    rgba = rgba.reshape(rows, SAMPLES, columns, SAMPLES, 4).mean(axis=(1, 3))
    coverage = rgba[..., 3]
    return rgba[..., :3] / np.maximum(coverage, 1e-9)[..., None], coverage


def _inside(shape: Shape, x: Array, y: Array) -> Array:
    numbers = shape.numbers
    if shape.kind == "box":
        return (x >= numbers[0]) & (y >= numbers[1]) & (x <= numbers[2]) & (y <= numbers[3])
    if shape.kind == "oval":
        return ((x - numbers[0]) / numbers[2]) ** 2 + ((y - numbers[1]) / numbers[3]) ** 2 <= 1
    if shape.kind == "poly":
        return _inside_polygon(np.reshape(numbers, (-1, 2)), x, y)
    if shape.kind == "line":
        return _on_line(numbers[0], np.reshape(numbers[1:], (-1, 2)), x, y)
    raise ValueError(f"kind of shape {shape.kind!r}; there are box, oval, poly, line")


def _inside_polygon(points: Array, x: Array, y: Array) -> Array:
    """Even-odd rule: a ray to the left crosses the outline an odd number of times."""
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x > x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


def _on_line(width: float, points: Array, x: Array, y: Array) -> Array:
    near = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in pairwise(points):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        near |= (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2 <= (width / 2) ** 2
    return near


def _glyph(width: float, height: float, body: Colour, drawing: str) -> Glyph:
    """Read a drawing: one shape a line, ``colour kind numbers``."""
    shapes = []
    for line in drawing.strip().splitlines():
        colour, kind, *numbers = line.split()
        shapes.append(Shape(colour, kind, tuple(map(float, numbers))))
    return Glyph(width, height, body, tuple(shapes))


GLYPHS: dict[str, Glyph] = {
    "aeroplane": _glyph(
        100,
        64,
        (165, 185, 215),
        """
        shade poly 40 30 64 30 42 0 28 0
        shade poly 40 34 64 34 42 64 28 64
        shade poly 2 30 18 30 10 14 2 14
        shade poly 2 34 18 34 10 50 2 50
        body oval 50 32 50 9
        black oval 88 32 6 5
        """,
    ),
    "bicycle": _glyph(
        100,
        60,
        (60, 190, 70),
        """
        black oval 21 39 21 21
        none oval 21 39 15 15
        black oval 79 39 21 21
        none oval 79 39 15 15
        body line 6 21 39 40 14 66 14 79 39
        body line 6 21 39 48 39 40 14
        body line 6 48 39 66 14
        black line 5 66 14 62 3 76 3
        black line 6 33 7 47 7
        """,
    ),
    "bird": _glyph(
        100,
        70,
        (30, 180, 200),
        """
        shade poly 24 38 0 26 6 54
        body oval 48 42 32 20
        body oval 77 22 15 15
        orange poly 90 16 100 24 89 28
        shade poly 26 36 66 36 40 56
        black oval 81 19 4 4
        orange line 4 45 60 45 70
        orange line 4 56 60 56 70
        """,
    ),
    "boat": _glyph(
        90,
        100,
        (150, 60, 45),
        """
        black line 4 43 3 43 74
        white poly 46 6 46 66 84 66
        grey poly 39 16 39 66 10 66
        body poly 2 72 88 72 70 100 20 100
        shade box 10 80 82 85
        """,
    ),
    "bottle": _glyph(
        34,
        100,
        (30, 125, 65),
        """
        body box 11 4 23 34
        body poly 11 26 23 26 34 44 0 44
        body box 0 43 34 100
        red box 10 0 24 9
        white box 0 57 34 82
        shade box 26 44 34 57
        """,
    ),
    "bus": _glyph(
        100,
        64,
        (215, 45, 40),
        """
        body box 0 0 100 54
        glass box 5 8 23 28
        glass box 28 8 46 28
        glass box 51 8 69 28
        glass box 74 8 96 28
        white box 0 34 100 40
        black oval 22 53 11 11
        grey oval 22 53 5 5
        black oval 78 53 11 11
        grey oval 78 53 5 5
        """,
    ),
    "car": _glyph(
        100,
        46,
        (45, 95, 215),
        """
        body poly 0 22 14 19 30 0 66 0 82 19 100 24 100 37 0 37
        glass poly 21 19 33 5 47 5 47 19
        glass poly 52 5 64 5 75 19 52 19
        black oval 22 36 10 10
        grey oval 22 36 4 4
        black oval 78 36 10 10
        grey oval 78 36 4 4
        """,
    ),
    "cat": _glyph(
        90,
        80,
        (245, 150, 45),
        """
        body poly 6 44 8 0 42 24
        body poly 84 44 82 0 48 24
        pink poly 13 30 14 12 28 22
        pink poly 77 30 76 12 62 22
        body oval 45 48 40 32
        white oval 29 44 8 9
        white oval 61 44 8 9
        black oval 29 44 3 8
        black oval 61 44 3 8
        pink poly 38 57 52 57 45 65
        black line 2 4 56 30 60
        black line 2 4 68 30 64
        black line 2 86 56 60 60
        black line 2 86 68 60 64
        """,
    ),
    "chair": _glyph(
        56,
        100,
        (225, 165, 70),
        """
        body box 4 0 13 60
        body box 43 0 52 60
        body box 4 3 52 13
        body box 4 24 52 34
        shade box 0 52 56 64
        body box 2 60 11 100
        body box 45 60 54 100
        """,
    ),
    "cow": _glyph(
        100,
        70,
        (240, 238, 232),
        """
        black line 3 11 26 3 54
        body oval 46 32 38 19
        body box 16 40 24 70
        body box 29 40 37 70
        body box 60 40 68 70
        body box 72 40 80 70
        black oval 31 27 12 9
        black oval 60 36 11 9
        black box 16 63 24 70
        black box 29 63 37 70
        black box 60 63 68 70
        black box 72 63 80 70
        grey line 4 78 2 84 10 92 10 98 2
        body oval 87 19 12 12
        pink oval 92 26 8 6
        black oval 86 16 3 3
        """,
    ),
    "diningtable": _glyph(
        100,
        60,
        (125, 75, 40),
        """
        body poly 16 0 84 0 100 24 0 24
        shade box 0 22 100 31
        shade box 4 30 14 60
        shade box 86 30 96 60
        white oval 36 12 13 6
        white oval 68 12 13 6
        """,
    ),
    "dog": _glyph(
        90,
        84,
        (165, 105, 55),
        """
        body oval 45 42 33 37
        shade oval 12 38 12 30
        shade oval 78 38 12 30
        white oval 45 60 19 18
        red oval 45 74 7 10
        black oval 45 52 9 7
        black oval 33 32 5 5
        black oval 57 32 5 5
        """,
    ),
    "horse": _glyph(
        100,
        92,
        (120, 65, 45),
        """
        black line 7 12 42 4 50 4 74
        black line 9 82 6 66 36
        body oval 44 48 35 16
        body poly 58 42 78 54 95 22 80 6
        body poly 80 4 86 4 100 26 96 34 82 26
        body box 14 50 22 92
        body box 27 52 35 92
        body box 60 52 68 92
        body box 72 50 80 92
        black oval 87 14 2 2
        """,
    ),
    "motorbike": _glyph(
        100,
        64,
        (225, 75, 150),
        """
        black oval 20 44 20 20
        grey oval 20 44 9 9
        black oval 80 44 20 20
        grey oval 80 44 9 9
        grey line 5 66 8 80 44
        body poly 26 28 56 16 72 22 60 46 34 48
        black poly 8 16 42 19 42 27 12 26
        black line 5 56 4 72 8
        yellow oval 75 15 6 6
        """,
    ),
    "person": _glyph(
        42,
        100,
        (130, 65, 185),
        """
        skin line 7 6 28 4 58
        skin line 7 36 28 38 58
        blue poly 10 58 20 58 18 100 9 100
        blue poly 22 58 32 58 33 100 24 100
        body poly 5 23 37 23 33 62 9 62
        skin oval 21 11 10 11
        black poly 11 9 13 1 29 1 31 9
        """,
    ),
    "pottedplant": _glyph(
        64,
        100,
        (70, 180, 60),
        """
        body poly 30 62 8 44 0 18 22 34
        body poly 34 62 56 44 64 18 42 34
        body poly 28 62 20 22 32 0 44 22 36 62
        shade line 3 32 62 32 12
        shade line 3 32 62 8 30
        shade line 3 32 62 56 30
        terracotta poly 14 68 50 68 44 100 20 100
        terracotta box 9 59 55 70
        """,
    ),
    "sheep": _glyph(
        100,
        74,
        (240, 230, 205),
        """
        black box 24 48 30 74
        black box 36 48 42 74
        black box 56 48 62 74
        black box 67 48 73 74
        body oval 17 32 15 15
        body oval 32 19 16 16
        body oval 52 17 17 17
        body oval 69 26 15 16
        body oval 64 44 15 14
        body oval 44 45 17 15
        body oval 26 43 15 14
        shade line 3 26 26 34 30 40 26
        shade line 3 46 36 54 40 60 36
        shade line 3 54 18 62 22 68 18
        black oval 86 36 13 14
        white oval 88 32 3 3
        """,
    ),
    "sofa": _glyph(
        100,
        58,
        (200, 60, 60),
        """
        body box 10 0 90 40
        shade box 49 0 51 28
        pink box 12 27 49 42
        pink box 51 27 88 42
        shade box 8 40 92 52
        body oval 8 22 8 8
        body oval 92 22 8 8
        body box 0 22 14 52
        body box 86 22 100 52
        black box 4 52 12 58
        black box 88 52 96 58
        """,
    ),
    "train": _glyph(
        100,
        58,
        (235, 195, 45),
        """
        body poly 0 2 76 2 100 32 100 46 0 46
        glass box 5 10 23 26
        glass box 29 10 47 26
        glass poly 58 10 72 10 86 26 58 26
        green box 0 34 100 46
        black oval 12 47 8 8
        black oval 32 47 8 8
        black oval 66 47 8 8
        black oval 86 47 8 8
        grey box 0 54 100 58
        """,
    ),
    "tvmonitor": _glyph(
        100,
        80,
        (110, 205, 235),
        """
        black box 0 0 100 64
        body box 7 7 93 57
        white poly 14 50 34 12 48 12 28 50
        grey box 44 64 56 74
        black box 24 72 76 80
        """,
    ),
}
