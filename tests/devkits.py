"""Small VOC devkits in a temporary folder, made from the embedded sample."""

import shutil
from pathlib import Path

SPLITS = (("VOC2007", "trainval", 4), ("VOC2007", "test", 3), ("VOC2012", "trainval", 2))


def small_devkit(sample: Path, target: Path, splits=SPLITS) -> Path:
    """Copy the first images with objects of each split; an odd number of test images shows padding by a sampler."""
    for year, split, count in splits:
        ids = (sample / year / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
        whole = [each for each in ids if "<object>" in (sample / year / "Annotations" / f"{each}.xml").read_text()]
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (target / year / folder).mkdir(parents=True, exist_ok=True)
        for each in whole[:count]:
            shutil.copy(sample / year / "JPEGImages" / f"{each}.jpg", target / year / "JPEGImages")
            shutil.copy(sample / year / "Annotations" / f"{each}.xml", target / year / "Annotations")
        split_file(target, year, split).write_text("".join(f"{each}\n" for each in whole[:count]))
    return target


def split_file(devkit: Path, year: str, split: str) -> Path:
    return devkit / year / "ImageSets" / "Main" / f"{split}.txt"


def first_id(devkit: Path, year="VOC2007", split="trainval") -> str:
    return split_file(devkit, year, split).read_text().split()[0]
