"""Only regular files are opened: a named pipe would make the reader wait for ever, and a device never ends."""

from __future__ import annotations

import os
import stat

from cvplugins.errors import DataError

__all__ = ["read_bytes", "stat_regular"]

KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def stat_regular(path: str | os.PathLike[str], what: str = "file") -> os.stat_result:
    """Return a file's size and times, without opening it.

    Args:
        path: The file, or a link to it.
        what: What it holds, for the message.

    Raises:
        DataError: There is none, or it is a folder, a named pipe, a device or a socket.

    Example:
        >>> stat_regular("/dev/zero", "image")
        Traceback (most recent call last):
        cvplugins.errors.DataError: /dev/zero: cannot read the image, it is a device and not a file
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path}: cannot read the {what}, {reason}") from error
    kind = KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is not None:
        raise DataError(f"{path}: cannot read the {what}, it is {kind} and not a file")
    return status


def read_bytes(path: str | os.PathLike[str], what: str = "file") -> bytes:
    """Return a regular file's content.

    Args:
        path: The file, or a link to it.
        what: What it holds, for the message.

    Raises:
        DataError: It cannot be read, or is no regular file.
    """
    stat_regular(path, what)
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot read the {what}, {error.strerror}") from error
