"""The samples by name: where configs look for them, and how they get there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .ade20k import write_ade20k_sample
from .folders import FOLDERS
from .voc import write_sample

__all__ = ["SAMPLES", "draw_missing", "draw_sample"]


@dataclass(frozen=True)
class Sample:
    """A drawn data set.

    Attributes:
        folder: Where the configs look for it, from the current folder.
        write: Draws it: a folder, ``seed`` and ``overwrite``.
        images: How many images it has.
    """

    folder: Path
    write: Callable[..., None]
    images: int


SAMPLES = {
    "voc": Sample(FOLDERS["voc"], write_sample, 291),
    "ade20k": Sample(FOLDERS["ade20k"], write_ade20k_sample, 201),
}


def draw_sample(
    kind: str, folder: str | os.PathLike[str] | None = None, *, seed: int = 0, overwrite: bool = False
) -> str:
    """Draw a sample and say what was written; all of it or nothing.

    Args:
        kind: ``"voc"`` or ``"ade20k"``.
        folder: The folder to make; where the configs look for it if None.
        seed: 0 or more; 0 is the sample that the published scores are for.
        overwrite: Replace an older sample. No other folder is ever replaced.

    Raises:
        UserError: The folder exists and is not an older sample, or is one and ``overwrite`` is False.
        ImportError: Pillow is missing.
    """
    sample = SAMPLES[kind]
    root = sample.folder if folder is None else Path(folder)
    sample.write(root, seed=seed, overwrite=overwrite)
    files = [path for path in root.rglob("*") if path.is_file()]
    images = sum(path.suffix == ".jpg" for path in files)
    size = sum(path.stat().st_size for path in files) / 1e6
    return f"{root}: {images} images, {len(files)} files, {size:.1f} MB"


def draw_missing(folder: str | os.PathLike[str]) -> None:
    """Draw the sample that belongs into a folder, if the folder does not exist; any other folder is left alone.

    Args:
        folder: Where a config looks for its data.

    Raises:
        ImportError: Pillow is missing.
    """
    for kind, sample in SAMPLES.items():
        if Path(folder) == sample.folder and not sample.folder.exists():
            sys.stderr.write(
                f"{folder} does not exist: drawing the sample, {sample.images} images, in less than a minute "
                f"(`cvplugins sample {kind}` does only that)\n"
            )
            sample.write(sample.folder)
