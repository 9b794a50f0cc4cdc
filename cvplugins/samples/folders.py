"""The folders of the drawn samples: where configs look for them, and how one gets there whole or not at all.

Nothing heavy is imported here: a mistake in a path is answered at once.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cvplugins.errors import UserError

__all__ = ["FOLDERS", "check_sample_folder", "whole_folder"]

FOLDERS = {"voc": Path("data/sample/VOCdevkit"), "ade20k": Path("data/sample/ADEChallengeData2016")}
MARKER = "drawn.txt"


def check_sample_folder(root: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raise ``UserError`` if a sample may not take this name: it exists and is no older one that may be replaced."""
    if not os.path.lexists(root):
        return
    is_sample = os.path.isfile(os.path.join(root, MARKER))
    if not (overwrite and is_sample):
        hint = "--force replaces it" if is_sample else "it is not a sample; choose another folder"
        raise UserError(f"{root} exists; {hint}")


@contextmanager
def whole_folder(root: str | os.PathLike[str], *, command: str, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary folder that takes the name ``root`` when the block ends well: all of a sample or nothing.

    Args:
        root: The folder to make.
        command: How to draw the same again; a file in the folder says it, and marks the folder as a sample.
        overwrite: Replace an older sample. No other folder is ever replaced.

    Raises:
        UserError: ``root`` exists and is not an older sample, or is one and ``overwrite`` is False; or nothing can be
            written there.
    """
    root = Path(root)
    check_sample_folder(root, overwrite=overwrite)
    with _temporary_folder_beside(root) as temporary:
        new = Path(temporary, "new")
        new.mkdir()
        yield new
        (new / MARKER).write_text(f"{command}\n")
        if root.exists():
            if not overwrite:
                return  # another process has drawn it in the meantime
            root.rename(Path(temporary, "old"))
        new.rename(root)


def _temporary_folder_beside(root: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-")
    except OSError as error:
        raise UserError(f"{root} cannot be made: {error.strerror}: {error.filename}; choose another folder") from error
