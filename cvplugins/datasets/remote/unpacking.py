"""Unpack an archive of a data set: only plain files, only below the folder, and never more than it can hold."""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from cvplugins.errors import DataError, first_line

__all__ = ["Member", "members", "unpack"]

PIECE = 2**20
MOST_MEMBERS = 2_000_000


@dataclass(frozen=True)
class Member:
    """A plain file in an archive.

    Attributes:
        path: Its path there.
        size: In bytes, as the archive says.
        open: Opens its content.
    """

    path: PurePosixPath
    size: int
    open: Callable[[], IO[bytes]]


def members(path: str | os.PathLike[str]) -> Iterator[Member]:
    """Yield the files of a tar or zip archive, in their order.

    Raises:
        DataError: It is no such archive, broken, encrypted, or has members that are links, devices or lie outside.
    """
    try:
        for count, member in enumerate(_zip_members(path) if zipfile.is_zipfile(path) else _tar_members(path)):
            if count >= MOST_MEMBERS:
                raise DataError(f"{path}: has more than {MOST_MEMBERS:,} members")
            yield member
    except _BROKEN as error:
        raise DataError(f"{path} is broken: {first_line(error)}") from error


_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError)


def unpack(
    path: str | os.PathLike[str],
    target: Path,
    *,
    inside: PurePosixPath,
    most_bytes: int,
    keep: Callable[[PurePosixPath], bool],
    wrote: Callable[[int], None],
) -> int:
    """Write the members of an archive below a folder; what is there under the same name is replaced.

    Args:
        path: A tar or zip archive.
        target: The folder.
        inside: What the paths of members begin with; it is taken away.
        most_bytes: How many bytes the members may have together.
        keep: Whether to write what will have a path below ``target``.
        wrote: Called with the number of bytes that are written, now and then.

    Returns:
        How many members were left out.

    Raises:
        DataError: See :func:`members`; or a member is longer than it says, or comes twice.
    """
    total, left_out, seen = 0, 0, set()
    for member in members(path):
        place = _below(member.path, inside)
        if place is None or not keep(place):
            left_out += 1
            continue
        if place in seen:
            raise DataError(f"{path}: member {member.path} comes twice")
        seen.add(place)
        total += member.size
        if total > most_bytes:
            raise DataError(f"{path}: its members have more than {most_bytes:,} bytes; it is not what it seems")
        file = target / place
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as content, file.open("wb") as written:
                _copy(content, written, member.size)
        except _LongerError:
            raise DataError(f"{path}: member {member.path} is longer than it says") from None
        except (*_BROKEN, RuntimeError) as error:
            raise DataError(f"{path}: member {member.path} is broken: {first_line(error)}") from error
        except OSError as error:
            raise DataError(f"{file} cannot be written: {(error.strerror or first_line(error)).lower()}") from error
        wrote(total)
    return left_out


class _LongerError(Exception):
    pass


def _copy(content: IO[bytes], written: IO[bytes], size: int) -> None:
    while piece := content.read(PIECE):
        size -= len(piece)
        if size < 0:
            raise _LongerError
        written.write(piece)
    if size > 0:
        raise EOFError("ends early")


def _below(path: PurePosixPath, inside: PurePosixPath) -> PurePosixPath | None:
    with contextlib.suppress(ValueError):
        return path.relative_to(inside)
    return None


def _tar_members(path: str | os.PathLike[str]) -> Iterator[Member]:
    with tarfile.open(path) as archive:
        for info in archive:
            if info.isdir():
                continue
            if not info.isreg():
                raise DataError(f"{path}: member {info.name} is a link or device, no plain file")
            yield Member(_safe(path, info.name), info.size, partial(_content, archive, info))


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(info)
    if content is None:
        raise EOFError("has no content")
    return content


def _zip_members(path: str | os.PathLike[str]) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            if info.flag_bits & 1:
                raise DataError(f"{path}: member {info.filename} is encrypted")
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise DataError(f"{path}: member {info.filename} is a link or device, no plain file")
            yield Member(_safe(path, info.filename), info.file_size, partial(archive.open, info))


def _safe(path: str | os.PathLike[str], name: str) -> PurePosixPath:
    member = PurePosixPath(name)
    is_strange = "\\" in name or "\0" in name or (len(name) > 1 and name[1] == ":")
    if member.is_absolute() or ".." in member.parts or not member.parts or is_strange:
        raise DataError(f"{path}: member {name!r} would lie outside of the folder; nothing of it is used")
    return member
