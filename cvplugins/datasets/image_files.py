"""Headers of image files: size, orientation, and whether the file is whole, without decoding the pixels."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from cvplugins.errors import DataError, first_line

from .regular_files import read_bytes, stat_regular

__all__ = ["HEADER_VERSION", "ImageHeader", "UnknownImageError", "has_broken_scan", "read_header"]

# Part of the key of kept headers: raise it with every change of what is read or refused here.
HEADER_VERSION = 1

ORIENTATION = 274  # EXIF's tag
JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"
START_OF_FRAME = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
END_OF_IMAGE = b"\xff\xd9"
# Some writers pad after the end marker. Within a scan 0xFF is always escaped, so the marker is no chance match.
TAIL = 1024
LONGEST_EXIF = 1 << 20
# Within a scan 0xFF is followed by 0, a restart or padding; all else begins the next segment.
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# Frames, tables, number of lines, restart interval, comments, and what applications add.
SEGMENTS = START_OF_FRAME | {0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}


class UnknownImageError(DataError):
    """An image that Pillow does not know or cannot read; another library may."""


@dataclass(frozen=True)
class ImageHeader:
    """What an image file says about itself.

    Attributes:
        format: Pillow's name of the format, such as ``"JPEG"``.
        width: Of the stored pixels.
        height: Of the stored pixels.
        orientation: EXIF's orientation, 1 to 8; 1 is upright, and 5 to 8 exchange width and height.
        pillow_orientation: The same as Pillow finds it, which also looks in XMP and in PNG's texts.
        refused_by_pillow: Why Pillow does not open the file although others do; empty if it does.
        trailing: Whether there is more than padding behind the end, such as a motion photograph's video.
    """

    format: str
    width: int
    height: int
    orientation: int = 1
    pillow_orientation: int = 1
    refused_by_pillow: str = ""
    trailing: bool = False


def read_header(path: str | os.PathLike[str]) -> ImageHeader:
    """Read an image's header, whatever the file's name ends in.

    A JPEG's tables are decoded, and its end has to be there; a PNG's chunks are walked through. Memory is bounded
    whatever size the header claims.

    Args:
        path: A file of a format that Pillow knows.

    Raises:
        DataError: There is no regular file, or it is empty, no image, truncated, damaged in its header, or an image of
            no size.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.jpg"
        >>> Image.new("RGB", (4, 3)).save(path)
        >>> read_header(path)  # doctest: +ELLIPSIS
        ImageHeader(format='JPEG', width=4, height=3, orientation=1, ...)
    """
    stat_regular(path, "image")
    try:
        with open(path, "rb") as file:
            start = file.read(len(PNG))
            if not start:
                raise DataError(f"{path}: the file is empty")
            if start.startswith(JPEG):
                return _read_jpeg(path, file)
            if start == PNG:
                return _read_png(path, file)
            return _read_other(path, file, start)
    except OSError as error:
        raise DataError(f"{path}: cannot read the image, {error.strerror or first_line(error)}") from error


def _read_jpeg(path: str | os.PathLike[str], file: BinaryIO) -> ImageHeader:
    from PIL.JpegImagePlugin import JpegImageFile

    file.seek(0)
    try:
        # Image.open would refuse large images, which other decoders take.
        image = JpegImageFile(file)
    except Exception as error:  # damaged bytes make parsers raise anything
        raise DataError(f"{path}: {_jpeg_problem(file, first_line(error))}") from error
    end_of_header = file.tell()
    file.seek(0)
    _decode_tables(path, file.read(end_of_header))
    trailing = _check_end(path, file, end_of_header)
    exif, found = _exif_orientation(image.info.get("exif")), _pillow_orientation(image)
    return ImageHeader("JPEG", *image.size, exif, found, "", trailing)


def _jpeg_problem(file: BinaryIO, reason: str) -> str:
    if file.tell() >= file.seek(0, os.SEEK_END):
        return "truncated JPEG (it ends within its header)"
    file.seek(0)
    head = file.read(LONGEST_EXIF)
    for place in _frames(head):
        height, width = struct.unpack(">HH", head[place + 5 : place + 9])
        if not width or not height:
            return f"an image of no size ({width} x {height} pixels)"
    return f"damaged JPEG, its header cannot be read ({reason})"


def _frames(head: bytes) -> Iterator[int]:
    """Yield where a JPEG's frame headers begin, which hold its size."""
    place = 2
    while place + 9 <= len(head):
        marker, length = head[place + 1], int.from_bytes(head[place + 2 : place + 4], "big")
        if head[place] != 0xFF or marker == 0xFF:  # padding between segments
            place += 1
            continue
        if marker in START_OF_FRAME:
            yield place
        place += 2 + max(length, 2)


def _decode_tables(path: str | os.PathLike[str], head: bytes) -> None:
    """Let libjpeg decode everything before the pixels: the same header on an image of 16 x 16 pixels without data."""
    from PIL.JpegImagePlugin import JpegImageFile

    small = bytearray(head)
    for place in _frames(head):
        small[place + 5 : place + 9] = b"\x00\x10\x00\x10"
    try:
        JpegImageFile(io.BytesIO(bytes(small) + END_OF_IMAGE)).load()
    except Exception as error:
        raise DataError(f"{path}: damaged JPEG, its tables cannot be decoded ({first_line(error)})") from error


def _check_end(path: str | os.PathLike[str], file: BinaryIO, end_of_header: int) -> bool:
    """Raise unless the end marker is there; return whether much stands behind it."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(end_of_header, size - TAIL))
    if END_OF_IMAGE in file.read():
        return False
    # A camera's video or a preallocated file's zeros: only now is all of the file read, in pieces.
    file.seek(end_of_header)
    before = b""
    while piece := file.read(1 << 20):
        if END_OF_IMAGE in before + piece:
            return True
        before = piece[-1:]
    raise DataError(f"{path}: truncated JPEG (no end marker)")


def has_broken_scan(path: str | os.PathLike[str]) -> bool:
    """Return whether a JPEG's pixels hold a marker that cannot stand there: its bytes are damaged.

    libjpeg only warns of most damage and fills the rest of the image with grey, so that decoders return it.

    Args:
        path: A JPEG whose header is sound.
    """
    content = read_bytes(path, "image")
    place = 2
    while content[place + 1] != END_OF_IMAGE[1]:
        if content[place + 1] not in SEGMENTS:
            return True
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        found = MARKER.search(content, place)
        if found is None:
            return True
        place = found.start()
    return False


def _read_png(path: str | os.PathLike[str], file: BinaryIO) -> ImageHeader:
    width = height = 0
    orientation, has_texts, kind = 1, False, b""
    size, place = file.seek(0, os.SEEK_END), len(PNG)
    while kind != b"IEND":
        file.seek(place)
        start = file.read(8)
        length = int.from_bytes(start[:4], "big")
        if len(start) < 8 or place + 12 + length > size:
            raise DataError(f"{path}: truncated PNG (no end chunk)")
        kind = start[4:]
        if place > len(PNG) and not width:
            raise DataError(f"{path}: damaged PNG, its header chunk is missing")
        if kind == b"IHDR":
            data, check = file.read(13), file.read(4)
            if length != 13 or zlib.crc32(kind + data) != int.from_bytes(check, "big"):
                raise DataError(f"{path}: damaged PNG, the checksum of its header is wrong")
            width, height = struct.unpack(">II", data[:8])
            if not width or not height:
                raise DataError(f"{path}: an image of no size ({width} x {height} pixels)")
        elif kind == b"eXIf" and length <= LONGEST_EXIF:
            orientation = _exif_orientation(b"Exif\0\0" + file.read(length))
        has_texts |= kind in (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
        place += 12 + length
    found, problem = _as_pillow_sees_texts(path) if has_texts else (1, "")
    return ImageHeader("PNG", width, height, orientation, found if found != 1 else orientation, problem)


def _as_pillow_sees_texts(path: str | os.PathLike[str]) -> tuple[int, str]:
    """Return the orientation that a PNG's texts say, and why Pillow refuses them, as it does long ones."""
    from PIL import PngImagePlugin

    try:
        with PngImagePlugin.PngImageFile(path) as image:
            return _pillow_orientation(image), ""
    except Exception as error:
        return 1, first_line(error)


def _read_other(path: str | os.PathLike[str], file: BinaryIO, start: bytes) -> ImageHeader:
    from PIL import Image, UnidentifiedImageError

    file.seek(0)
    try:
        with Image.open(file) as image:
            width, height = image.size
            found = ImageHeader(str(image.format), width, height, _exif_orientation(image.info.get("exif")))
            own = _pillow_orientation(image)
    except UnidentifiedImageError as error:
        raise UnknownImageError(f"{path}: not an image (it starts with bytes {start[:8].hex(' ')})") from error
    except Image.DecompressionBombError as error:
        raise UnknownImageError(f"{path}: {first_line(error).rstrip('.')}") from error
    except Exception as error:  # damaged bytes make parsers raise anything
        raise UnknownImageError(f"{path}: the image cannot be read ({first_line(error)})") from error
    if not width or not height:
        raise DataError(f"{path}: an image of no size ({width} x {height} pixels)")
    return ImageHeader(found.format, width, height, found.orientation, own)


def _exif_orientation(exif: Any) -> int:
    """Return what an EXIF block says; 1 if it is absent or broken."""
    from PIL import Image

    if not isinstance(exif, bytes):
        return 1
    block = Image.Exif()
    try:
        block.load(exif)
        return _valid(block.get(ORIENTATION))
    except Exception:  # decoders pass over a broken block too
        return 1


def _pillow_orientation(image: Any) -> int:
    from PIL import Image

    try:
        # The base class's: PNG's own would decode the pixels first.
        return _valid(Image.Image.getexif(image).get(ORIENTATION))
    except Exception:
        return 1


def _valid(orientation: Any) -> int:
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
