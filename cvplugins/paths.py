"""Paths that a user gives, checked before any work: what will be read is a file, what will be written can be."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from .errors import UserError, first_line

__all__ = ["check_file_to_write", "check_folder", "check_source", "is_address"]

ROOM = 100  # bytes of a path that files inside a folder need for their names
PATH_MAX, NAME_MAX = 4096, 255  # Linux's


def is_address(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is an address such as ``https://...``."""
    return "://" in str(path)


def check_source(path: str | os.PathLike[str], what: str, hint: str = "") -> None:
    """Raise ``UserError`` unless a path is a regular file or an address that can be asked for; nothing is opened.

    Args:
        path: What will be read.
        what: What the message calls it, such as ``"checkpoint"``.
        hint: What to do about a file that does not exist.

    Example:
        >>> check_source("http://[none/epoch_1.pth", "checkpoint")
        Traceback (most recent call last):
        ...
        cvplugins.errors.UserError: checkpoint http://[none/epoch_1.pth is no address (Invalid IPv6 URL)
    """
    if not isinstance(path, (str, os.PathLike)):
        raise UserError(f"{what} is {path!r}; give the path of a file")
    if is_address(path):
        _check_address(str(path), what)
        return
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise UserError(f"{what} {path} does not exist{hint and f'; {hint}'}") from None
    except NotADirectoryError:
        raise UserError(f"{what} {path} does not exist: a folder of it is a file{hint and f'; {hint}'}") from None
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ENAMETOOLONG:  # no file has such a name
            raise UserError(f"{what} {_cut(path)} does not exist{hint and f'; {hint}'}") from None
        raise UserError(f"{what} {_cut(path)} cannot be read: {_reason(error)}") from error
    if stat.S_ISDIR(mode):
        raise UserError(f"{what} {path} is a folder{hint and f'; {hint}'}")
    if not stat.S_ISREG(mode):
        raise UserError(f"{what} {path} is no regular file, but a pipe, socket or device")
    if not os.access(path, os.R_OK):
        raise UserError(f"{what} {path} cannot be read: permission denied")


def check_folder(path: str | os.PathLike[str], what: str = "folder") -> None:
    """Raise ``UserError`` unless files can be written to a folder, which need not exist yet; none is left there.

    Example:
        >>> check_folder("/dev/null/run", "--work-dir")
        Traceback (most recent call last):
        ...
        cvplugins.errors.UserError: --work-dir /dev/null/run: /dev/null is a file, not a folder
    """
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise UserError(f"{what} is {path!r}; give the path of a folder")
    text = os.fspath(path)
    if "\0" in text:
        raise UserError(f"{what} {_cut(path)}: a path has no zero bytes")
    whole = Path(text).absolute()
    too_long = [part for part in whole.parts if len(os.fsencode(part)) > NAME_MAX]
    if too_long or len(os.fsencode(whole)) > PATH_MAX - ROOM:
        raise UserError(f"{what} {_cut(path)}: the name is too long for a folder")
    above = next(each for each in (whole, *whole.parents) if os.path.lexists(each))
    if not above.is_dir():
        raise UserError(f"{what} {path}: {above} is a file, not a folder")
    try:
        # A probe, because permissions do not say it all: a read-only disk, /proc, one that is full.
        os.rmdir(tempfile.mkdtemp(prefix=".cvplugins_", dir=above))
    except OSError as error:
        raise UserError(f"{what} {path}: nothing can be written to {above}: {_reason(error)}") from error


def check_file_to_write(path: str | os.PathLike[str], what: str = "file") -> None:
    """Raise ``UserError`` unless a file can be written or replaced; it is not touched."""
    text = os.fspath(path)
    if "\0" not in text and len(os.fsencode(Path(text).name)) > NAME_MAX - len(f"..{2**22}.tmp"):
        raise UserError(f"{what} {_cut(path)}: the name is too long for a file")
    check_folder(Path(text).parent if "\0" not in text else text, f"{what} {_cut(path)}: folder")
    if os.path.isdir(path):
        raise UserError(f"{what} {path} is a folder; give the name of a file")
    if os.path.exists(path) and not (os.path.isfile(path) and os.access(path, os.W_OK)):
        raise UserError(f"{what} {path} cannot be replaced: it is no regular file, or it is read-only")


def _check_address(address: str, what: str) -> None:
    try:
        parts = urlsplit(address)
        _ = parts.port  # a ValueError if it is no number
    except ValueError as error:
        raise UserError(f"{what} {_cut(address)} is no address ({first_line(error)})") from error
    strange = any(letter.isspace() or not letter.isprintable() for letter in address)
    if strange or not parts.scheme or (parts.scheme in ("http", "https") and not parts.hostname):
        raise UserError(f"{what} {_cut(address)!r} is no address; expected one such as https://host/epoch_12.pth")
    if parts.scheme in ("http", "https") and not Path(parts.path).name:
        raise UserError(f"{what} {_cut(address)}: the address names no file")


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or first_line(error)).lower()


def _cut(path: str | os.PathLike[str]) -> str:
    text = str(path).replace("\0", "\\0")
    return text if len(text) < 120 else f"{text[:60]}...{text[-40:]}"
