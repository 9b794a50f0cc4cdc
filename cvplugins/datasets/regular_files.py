"""Read files that have an end: a pipe or a device would keep the reader waiting for ever."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .voc import DataError

__all__ = ["read_regular", "read_regular_text"]


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a regular file.

    Raises:
        DataError: The file is missing, no regular file, or cannot be read.

    Example:
        >>> read_regular(".")
        Traceback (most recent call last):
        cvplugins.datasets.voc.DataError: .: is a folder, not a file
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise DataError(f"{path}: is a folder, not a file")
        if not stat.S_ISREG(mode):
            raise DataError(f"{path}: is no regular file, but a pipe or a device; save its content to a file first")
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def read_regular_text(path: str | os.PathLike[str]) -> str:
    """Return the text of a regular file in UTF-8, without a byte order mark.

    Raises:
        DataError: As :func:`read_regular`, or the file is no text.
    """
    try:
        return read_regular(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read as text: {error}") from error
