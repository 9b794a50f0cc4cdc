"""Lists of images that take the place of those in a config."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["WrittenLists"]


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
