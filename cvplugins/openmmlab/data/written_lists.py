"""Lists of images that take the place of those in a config."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from mmengine.config import Config

from cvplugins.distributed import gather_objects

from .dataset_nodes import dataset_nodes

__all__ = ["WrittenLists", "keep_lists"]

FOLDER = "whole_images"


class WrittenLists:
    """Writes lists of images, one plain name a line, into a folder that is made for the first one.

    Args:
        folder: Where to write.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(os.path.abspath(folder))
        self._taken: set[str] = set()

    def write(self, images: Iterable[str], stem: str) -> str:
        """Write a list and return its path.

        Args:
            images: The names.
            stem: Of the file; a number follows if another list has it.
        """
        name = stem
        while name in self._taken:
            name = f"{stem}_{len(self._taken)}"
        self._taken.add(name)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.txt"
        path.write_text("".join(f"{image}\n" for image in images), encoding="utf-8")
        return str(path)


def keep_lists(config: Config, loaders: tuple[str, ...], written: str | os.PathLike[str]) -> None:
    """Move the lists of a run that begins into its work dir, where its config names them.

    Args:
        config: A config that :func:`check_data` has changed; it names the new places then.
        loaders: Keys such as ``"train_dataloader"``.
        written: The folder that they were written to.
    """
    kept = Path(os.path.abspath(config.work_dir), FOLDER)
    for loader in loaders:
        for dataset in dataset_nodes(config, loader):
            path = Path(str(dataset.node.get("ann_file")))
            if path.parent == Path(os.path.abspath(written)):
                dataset.node["ann_file"] = str(kept / path.name)
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        for path in sorted(Path(written).glob("*.txt")):
            kept.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, kept / path.name)
    gather_objects(None)  # no process looks for a list before it is there
