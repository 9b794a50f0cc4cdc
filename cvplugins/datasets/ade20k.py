"""ADE20K, scene parsing: its 150 classes, its layout, and how to get it."""

from __future__ import annotations

import os
from pathlib import Path

from cvplugins.errors import DataError

__all__ = ["ADE20K_CLASSES", "HOW_TO_GET_ADE20K", "ade20k_pairs"]

# In the order of objectInfo150.txt, by mmseg's short names; a label map holds the index + 1, and 0 for unlabelled.
ADE20K_CLASSES = (
    *("wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet"),
    *("sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water"),
    *("painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk"),
    *("rock", "wardrobe", "lamp", "bathtub", "railing", "cushion", "base", "box", "column", "signboard"),
    *("chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path"),
    *("stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway", "river", "bridge", "bookcase"),
    *("blind", "coffee table", "toilet", "flower", "book", "hill", "bench", "countertop", "stove", "palm"),
    *("kitchen island", "computer", "swivel chair", "boat", "bar", "arcade machine", "hovel", "bus", "towel"),
    *("light", "truck", "tower", "chandelier", "awning", "streetlight", "booth", "television receiver", "airplane"),
    *("dirt track", "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet", "poster"),
    *("stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything", "swimming pool", "stool"),
    *("barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball", "food", "step", "tank"),
    *("trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen", "blanket", "sculpture"),
    *("hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen", "plate", "monitor"),
    *("bulletin board", "shower", "radiator", "glass", "clock", "flag"),
)

HOW_TO_GET_ADE20K = (
    "To get ADE20K: `cvplugins data get ade20k` (1 GB) makes data/ADEChallengeData2016; docs/data.md has other ways. "
    "To try without it: configs/ade20k_mask2former_sample.py or, for Detectron2, "
    "configs/detectron2/ade20k_mask2former_sample.yaml with data/sample/ADEChallengeData2016"
)


def ade20k_pairs(root: str | os.PathLike[str], split: str) -> list[tuple[Path, Path]]:
    """Return the paths of each image of a split and of its label map, by name.

    Args:
        root: The folder ``ADEChallengeData2016``.
        split: ``"training"`` or ``"validation"``.

    Raises:
        DataError: A folder is missing, or holds no image; the message says how to get the data.

    Example:
        >>> ade20k_pairs("nowhere", "training")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        cvplugins.errors.DataError: folder ...nowhere/images/training does not exist. To get ADE20K: ...
    """
    images, labels = (Path(root, kind, split) for kind in ("images", "annotations"))
    for folder in (images, labels):
        if not folder.is_dir():
            raise DataError(f"folder {folder.absolute()} does not exist. {HOW_TO_GET_ADE20K}")
    jpegs = sorted(path for path in images.iterdir() if path.suffix.lower() == ".jpg")
    found = [(image, labels / f"{image.stem}.png") for image in jpegs]
    if not found:
        raise DataError(f"folder {images.absolute()} holds no .jpg. {HOW_TO_GET_ADE20K}")
    return found
