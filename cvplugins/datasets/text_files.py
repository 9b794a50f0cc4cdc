"""Text files of people's tools: UTF-8, with or without a byte order mark."""

from __future__ import annotations

import os

from cvplugins.errors import DataError

from .regular_files import read_bytes

__all__ = ["read_text"]


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of a regular file, without a byte order mark.

    Raises:
        DataError: The file is missing, no regular file, or no text.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read as text: {error}") from error
