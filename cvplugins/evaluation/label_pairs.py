"""Label images of predictions and their annotations, by their names."""

from __future__ import annotations

import os
from pathlib import Path

from cvplugins.datasets import DataError

__all__ = ["label_pairs"]


def label_pairs(predictions: str | os.PathLike[str], labels: str | os.PathLike[str]) -> dict[str, tuple[Path, Path]]:
    """Return the prediction and the label of each image, by its name in the folders, sorted.

    Args:
        predictions: Folder of PNG images; folders inside are searched.
        labels: Folder of images of the same names.

    Raises:
        DataError: A folder is missing or empty, only one folder has an image, or one is no regular file.
    """
    found, wanted = (_images_in(Path(folder)) for folder in (predictions, labels))
    for name, one, other, folder in (("label", found, wanted, labels), ("prediction", wanted, found, predictions)):
        missing = sorted(set(one) - set(other))
        if missing:
            raise DataError(f"{folder}: has no {name} for {missing[0]} ({len(missing)} are missing)")
    return {name: (found[name], wanted[name]) for name in sorted(wanted)}


def _images_in(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: is no folder")
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*.png")}
    if not found:
        raise DataError(f"{folder}: holds no .png")
    for path in found.values():
        if not path.is_file():
            raise DataError(f"{path}: is no regular file; label images are read whole")
    return found
