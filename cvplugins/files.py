"""Files that are written: whole or not at all, and under a name that says what is in them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError
from .paths import check_file_to_write

__all__ = ["check_out", "check_weights_out", "hand_over", "kept_copy", "sweep_unfinished", "write_whole"]

UNFINISHED = re.compile(r"\..+\.\d+\.tmp")  # as write_whole names them


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


def sweep_unfinished(folder: str | os.PathLike[str]) -> None:
    """Delete what processes that were killed left half written, in a folder that nobody else writes to now.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in (".figure.svg.123.tmp", "figure.svg"): (folder / name).touch()
    >>> sweep_unfinished(folder)
    >>> [path.name for path in folder.iterdir()]
    ['figure.svg']
    """
    for path in Path(folder).rglob(".*.tmp"):
        if UNFINISHED.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def check_out(out: str | None) -> None:
    """Raise ``UserError`` unless ``--out`` can be written, and its suffix says what a test has to write."""
    if out is None:
        return
    if Path(out).suffix not in {".json", ".pkl", ".pickle"}:
        raise UserError(f"--out {out}: use a name that ends in .json (metrics) or .pkl (predictions)")
    check_file_to_write(out, "--out")


def kept_copy(work_dir: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Return where a test keeps in its work dir what it also writes to ``--out``: hours of work lie behind it."""
    return Path(work_dir, "test_results", Path(out).name)


def hand_over(kept: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Copy what a test has kept to ``--out``.

    Raises:
        UserError: That cannot be written; the message says where the results lie.
    """
    if os.path.realpath(kept) == os.path.realpath(out):
        return
    try:
        with write_whole(out) as temporary:
            shutil.copyfile(kept, temporary)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror}; the results lie in {kept}") from error


def check_weights_out(path: str | os.PathLike[str]) -> None:
    """Raise ``UserError`` unless a file of weights can be written and has a name that both frameworks can load."""
    if Path(path).suffix != ".pth":
        raise UserError(f"{path}: use a name that ends in .pth, by which both frameworks know how to load it")
    check_file_to_write(path)
