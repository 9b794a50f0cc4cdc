"""Files that are written: whole or not at all, and under a name that says what is in them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError

__all__ = ["check_folder", "check_out", "check_weights_out", "write_whole"]


@contextmanager
def write_whole(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` that takes its name when the block ends well.

    Whenever the process dies, ``target`` holds what it held before or all of the new content. Missing folders
    are made.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "new" / "a.txt"
        >>> with write_whole(target) as temporary:
        ...     _ = temporary.write_text("content")
        >>> target.read_text()
        'content'
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def check_out(out: str | None) -> None:
    """Raise ``UserError`` unless a test knows by the suffix of ``--out`` what to write, and can write it there."""
    if out is None:
        return
    if Path(out).suffix not in {".json", ".pkl", ".pickle"}:
        raise UserError(f"--out {out}: use a name that ends in .json (metrics) or .pkl (predictions)")
    check_folder(Path(out).parent, f"--out {out}")
    if Path(out).exists() and not Path(out).is_file():
        raise UserError(f"--out {out}: is no regular file; use another name")
    _try_name(f"--out {out}", Path(out))


def check_folder(folder: str | os.PathLike[str], called: str) -> None:
    """Raise ``UserError`` unless files can be written into a folder, or it can be made; nothing is left there.

    Args:
        folder: The folder, which need not exist.
        called: What the message calls it, such as ``"--out-dir results"``.

    Example:
        >>> check_folder("/dev/null/results", "--out-dir /dev/null/results")
        Traceback (most recent call last):
        cvplugins.errors.UserError: --out-dir /dev/null/results: /dev/null is not a folder
    """
    folder = Path(folder)
    _try_name(called, folder)
    existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(each))
    if not existing.is_dir():
        raise UserError(f"{called}: {existing} is not a folder")
    try:
        # What permissions say is not all: a file system may be read-only or full.
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"{called}: {existing} cannot be written into: {error.strerror}") from error


def _try_name(called: str, path: Path) -> None:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:  # too long, a zero byte, a loop of links
        raise UserError(f"{called}: {getattr(error, 'strerror', None) or error}") from error


def check_weights_out(path: str | os.PathLike[str]) -> None:
    """Raise ``UserError`` unless both frameworks know by its name how to load a file of weights."""
    if Path(path).suffix != ".pth":
        raise UserError(f"{path}: use a name that ends in .pth, by which both frameworks know how to load it")
