"""Draw the embedded sample of scenes: ADE20K's layout, stuff and things, that a small model learns in minutes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cvplugins.datasets.ade20k import ADE20K_CLASSES

from .folders import whole_folder
from .glyphs import GLYPHS, Colour, Glyph, Shape
from .painting import add_clutter, blend, draw_glyph, finish, on_canvas, write_jpeg

__all__ = ["draw_scene", "write_ade20k_sample"]

Array = NDArray[Any]

# Split, number of images, name of an image. An odd number of validation images shows mistakes of distributed testing.
SPLITS = (("training", 160, "ADE_train_{:08d}"), ("validation", 41, "ADE_val_{:08d}"))
SIZES = ((160, 120), (160, 120), (120, 160), (150, 110), (140, 140), (192, 128))
RARE = 0.1  # share of the scenes with a thing of a rare class
UNLABELLED = 0.3  # share of the scenes with clutter, which has no label


@dataclass(frozen=True)
class Stuff:
    """A surface: its colour, the strength of its grain, and stripes (period in pixels, angle in degrees, strength)."""

    colour: Colour
    grain: float
    stripes: tuple[float, float, float] = (0, 0, 0)


STUFF = {
    "sky": Stuff((140, 190, 240), 6),
    "building": Stuff((175, 120, 95), 10, (9, 90, 26)),
    "tree": Stuff((35, 95, 35), 34),
    "road": Stuff((85, 85, 92), 8),
    "grass": Stuff((110, 185, 60), 22),
    "mountain": Stuff((125, 110, 140), 20),
    "water": Stuff((30, 90, 160), 8, (7, 90, 24)),
    "wall": Stuff((225, 205, 165), 5),
    "floor": Stuff((150, 95, 50), 8, (10, 0, 22)),
    "ceiling": Stuff((240, 240, 240), 3),
}

# Things by ADE20K's name, and the drawings that show them.
THINGS = {
    "person": ("person",),
    "car": ("car",),
    "bus": ("bus",),
    "boat": ("boat",),
    "airplane": ("aeroplane",),
    "animal": ("cow", "horse"),
    "sofa": ("sofa",),
    "chair": ("chair",),
    "plant": ("pottedplant",),
    "television receiver": ("tvmonitor",),
    "windowpane": ("window",),
    "painting": ("painting",),
    "bicycle": ("bicycle",),
    "bottle": ("bottle",),
    "flag": ("flag",),
}
DRAWINGS = {
    **GLYPHS,
    "window": Glyph(
        60,
        80,
        (250, 250, 250),
        (
            Shape("body", "box", (0, 0, 60, 80)),
            Shape("glass", "box", (6, 6, 27, 74)),
            Shape("glass", "box", (33, 6, 54, 74)),
        ),
    ),
    "painting": Glyph(
        80,
        60,
        (120, 40, 30),
        (
            Shape("yellow", "box", (0, 0, 80, 60)),
            Shape("body", "box", (8, 8, 72, 52)),
            Shape("green", "poly", (8, 52, 34, 18, 56, 52)),
        ),
    ),
    "flag": Glyph(
        60,
        90,
        (215, 30, 40),
        (Shape("grey", "box", (0, 0, 5, 90)), Shape("body", "poly", (5, 2, 60, 8, 60, 40, 5, 38))),
    ),
}


class Scene:
    """A picture in the making: pixels, float64 ``(H, W, 3)``, and labels, uint8 ``(H, W)``, 0 for none."""

    def __init__(self, height: int, width: int, random: np.random.RandomState) -> None:
        self.height, self.width, self.random = height, width, random
        self.pixels = np.zeros((height, width, 3))
        self.labels = np.zeros((height, width), np.uint8)

    def fill(self, name: str, region: Array) -> None:
        """Cover a region with stuff."""
        stuff, random = STUFF[name], self.random
        y, x = np.indices((self.height, self.width))
        period, angle, strength = stuff.stripes
        surface = sum(
            gaussian_filter(random.standard_normal(region.shape), sigma) * 2 * sigma for sigma in (0.7, 2.5)
        ) * (stuff.grain / 2)
        if strength:
            turned = np.deg2rad(angle + random.uniform(-4, 4))
            along = x * np.cos(turned) + y * np.sin(turned)
            surface = surface + strength * np.sign(np.sin(2 * np.pi * along / (period * random.uniform(0.8, 1.2))))
        light = np.linspace(random.uniform(0.88, 1.1), random.uniform(0.88, 1.1), self.height)[:, None, None]
        colour = np.asarray(stuff.colour) * random.uniform(0.9, 1.1, 3)
        blend(self.pixels, colour * light + surface[..., None], region.astype(float))
        self._label(name, region)

    def place(self, name: str, side: float, bottom: float, left: float) -> None:
        """Draw a thing; ``side`` is its longer side as a share of the shorter image side, the place its lower left."""
        random = self.random
        drawing = DRAWINGS[THINGS[name][random.randint(len(THINGS[name]))]]
        rgb, coverage = draw_glyph(drawing, side * min(self.height, self.width), random)
        top = int(bottom * self.height) - len(coverage)
        column = int(left * self.width - 0.1 * coverage.shape[1])
        opacity = on_canvas(coverage, top, column, self.height, self.width)
        blend(self.pixels, on_canvas(rgb, top, column, self.height, self.width), opacity)
        self._label(name, opacity > 0.5)

    def clutter(self) -> None:
        """Draw something that has no label."""
        self.labels[add_clutter(self.pixels, self.random) > 0.3] = 0

    def below(self, level: float, waves: float) -> Array:
        """Return what lies under a wavy line; ``level`` and ``waves``, its height, are shares of the image's height."""
        x = np.linspace(0, 2 * np.pi, self.width)
        line = level + sum(
            waves / k * np.sin(k * x * self.random.uniform(0.5, 1.5) + self.random.uniform(0, 7)) for k in (1, 2, 4)
        )
        below: Array = np.indices((self.height, self.width))[0] >= line * self.height
        return below

    def between(self, first: float, last: float, top: float) -> Array:
        """Return a rectangle: columns as shares of the width, rows below ``top``."""
        y, x = np.indices((self.height, self.width))
        inside: Array = (x >= first * self.width) & (x < last * self.width) & (y >= top * self.height)
        return inside

    def disc(self, x: float, y: float, radius: float) -> Array:
        """Return a ragged disc; the radius as a share of the shorter side."""
        rows, columns = np.indices((self.height, self.width))
        distance = np.hypot(columns - x * self.width, rows - y * self.height)
        ragged = gaussian_filter(self.random.standard_normal(distance.shape), 2) * 14
        inside: Array = distance + ragged < radius * min(self.height, self.width)
        return inside

    def _label(self, name: str, region: Array) -> None:
        self.labels[region] = ADE20K_CLASSES.index(name) + 1


def _street(scene: Scene) -> None:
    u = scene.random.uniform
    horizon = u(0.5, 0.65)
    everywhere = np.ones_like(scene.labels, bool)
    scene.fill("sky", everywhere)
    left = u(-0.1, 0.3)
    for _ in range(scene.random.randint(1, 3)):
        right = left + u(0.25, 0.5)
        scene.fill("building", scene.between(left, right, u(0.05, 0.35)))
        left = right + u(0, 0.2)
    if u() < 0.6:
        scene.fill("tree", scene.disc(u(), horizon - u(0.05, 0.2), u(0.16, 0.3)))
    scene.fill("road", scene.below(horizon, 0.004))
    scene.place("bus" if u() < 0.35 else "car", u(0.4, 0.65), u(horizon + 0.15, 0.97), u(0, 0.6))
    if u() < 0.6:
        scene.place("person", u(0.4, 0.6), u(horizon + 0.2, 1), u(0.05, 0.85))
    if u() < 0.3:
        scene.place("airplane", u(0.35, 0.5), u(0.22, 0.35), u(0.05, 0.6))


def _meadow(scene: Scene) -> None:
    u = scene.random.uniform
    horizon = u(0.42, 0.6)
    scene.fill("sky", np.ones_like(scene.labels, bool))
    if u() < 0.75:
        scene.fill("mountain", scene.below(horizon - u(0.1, 0.22), 0.08))
    scene.fill("grass", scene.below(horizon, 0.02))
    lake = u() < 0.5
    if lake:
        scene.fill("water", scene.below(u(0.68, 0.78), 0.015))
        if u() < 0.75:
            scene.place("boat", u(0.4, 0.6), u(0.84, 0.98), u(0.05, 0.7))
    if u() < 0.65:
        scene.fill("tree", scene.disc(u(), horizon - u(0, 0.12), u(0.16, 0.3)))
    if not lake or u() < 0.5:
        scene.place("animal", u(0.4, 0.6), horizon + u(0.12, 0.3), u(0, 0.6))
    if u() < 0.3:
        scene.place("airplane", u(0.35, 0.5), u(0.2, 0.32), u(0.05, 0.6))


def _room(scene: Scene) -> None:
    u = scene.random.uniform
    scene.fill("wall", np.ones_like(scene.labels, bool))
    floor = u(0.62, 0.75)
    scene.fill("floor", scene.below(floor, 0.003))
    if u() < 0.7:
        scene.fill("ceiling", ~scene.below(u(0.1, 0.18), 0.002))
    scene.place("windowpane" if u() < 0.6 else "painting", u(0.35, 0.5), floor - u(0.08, 0.15), u(0.02, 0.25))
    if u() < 0.6:
        scene.place("painting" if u() < 0.5 else "windowpane", u(0.3, 0.42), floor - u(0.1, 0.2), u(0.5, 0.7))
    if u() < 0.5:
        scene.place("sofa", u(0.5, 0.75), u(floor + 0.1, 0.97), u(0, 0.45))
    else:
        scene.place("television receiver", u(0.4, 0.6), u(floor + 0.05, 0.95), u(0, 0.5))
    if u() < 0.6:
        scene.place("chair" if u() < 0.5 else "plant", u(0.4, 0.6), u(floor + 0.15, 1), u(0.5, 0.85))


KINDS: dict[str, tuple[Callable[[Scene], None], str]] = {
    "street": (_street, "flag"),
    "meadow": (_meadow, "bicycle"),
    "living_room": (_room, "bottle"),
}


def draw_scene(kind: str, random: np.random.RandomState) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one scene.

    Args:
        kind: ``"street"``, ``"meadow"`` or ``"living_room"``.
        random: Source of all variation.

    Returns:
        RGB, uint8 ``(H, W, 3)``, and the label map, uint8 ``(H, W)``: 0 unlabelled, 1 to 150 the classes.

    Example:
        >>> pixels, labels = draw_scene("street", np.random.RandomState(0))
        >>> pixels.shape[:2] == labels.shape, ADE20K_CLASSES.index("sky") + 1 in labels
        (True, True)
    """
    width, height = SIZES[random.randint(len(SIZES))]
    draw, rare = KINDS[kind]
    scene = Scene(height, width, random)
    draw(scene)
    if random.uniform() < RARE:
        scene.place(rare, random.uniform(0.3, 0.5), random.uniform(0.8, 0.95), random.uniform(0.1, 0.8))
    if random.uniform() < UNLABELLED:
        for _ in range(random.randint(1, 4)):
            scene.clutter()
    return finish(scene.pixels, random), scene.labels


def write_ade20k_sample(root: str | Path, *, seed: int = 0, overwrite: bool = False) -> None:
    """Write the sample in the layout of ``ADEChallengeData2016``; all of it or nothing.

    Equal seeds give equal label maps everywhere, and equal images with equal versions of Pillow's JPEG encoder.

    Args:
        root: The folder to make, such as ``data/sample/ADEChallengeData2016``.
        seed: 0 or more.
        overwrite: Replace an older sample. No other folder is ever replaced.

    Raises:
        UserError: ``root`` exists and is not an older sample, or is one and ``overwrite`` is False.
        ImportError: Pillow is missing.
    """
    command = f"cvplugins sample ade20k --seed {seed}"
    categories: list[str] = []
    counts: dict[str, Array] = {}
    with whole_folder(root, command=command, overwrite=overwrite) as new:
        for index, (split, images, name) in enumerate(SPLITS):
            random = np.random.RandomState([seed, index])
            counts[split] = np.zeros(256, np.int64)
            for number in range(1, images + 1):
                kind = list(KINDS)[(number - 1) % len(KINDS)]
                labels = _write_scene(new, split, name.format(number), kind, random)
                counts[split] += np.bincount(labels.ravel(), minlength=256)
                categories.append(f"{name.format(number)} {kind}\n")
        (new / "sceneCategories.txt").write_text("".join(categories))
        (new / "objectInfo150.txt").write_text(_object_info(counts["training"]))


def _write_scene(root: Path, split: str, name: str, kind: str, random: np.random.RandomState) -> Array:
    pixels, labels = draw_scene(kind, random)
    image, label_map = root / "images" / split / f"{name}.jpg", root / "annotations" / split / f"{name}.png"
    for path in (image, label_map):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_jpeg(image, pixels)
    from PIL import Image  # whose absence is named above

    Image.fromarray(labels).save(label_map, optimize=True)
    return labels


def _object_info(pixels: Array) -> str:
    """Return the table of classes with their share of the labelled pixels, as the download's."""
    share = pixels[1 : len(ADE20K_CLASSES) + 1] / pixels[1:].sum()
    rows = [f"{index}\t{share[index - 1]:.4f}\t{name}\n" for index, name in enumerate(ADE20K_CLASSES, start=1)]
    return "Idx\tRatio\tName\n" + "".join(rows)
