"""Small folders in ADE20K's layout, made from the embedded sample."""

import shutil
from pathlib import Path

SPLITS = (("training", 4), ("validation", 3))


def small_scenes(sample: Path, target: Path, splits=SPLITS) -> Path:
    """Copy the first images of each split; an odd number of validation images shows padding by a sampler."""
    for split, count in splits:
        for image in sorted((sample / "images" / split).glob("*.jpg"))[:count]:
            for source in (image, label_map(image)):
                copy = target / source.relative_to(sample)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, copy)
    return target


def label_map(image: Path) -> Path:
    return image.parents[2] / "annotations" / image.parent.name / f"{image.stem}.png"


def first_image(scenes: Path, split="training") -> Path:
    return min((scenes / "images" / split).glob("*.jpg"))
