"""What a framework's loader makes of an image: how it turns it, and up to which size it reads it."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Any

from cvplugins.errors import DataError, first_line

from .file_facts import read_facts
from .image_files import HEADER_VERSION, ImageHeader, UnknownImageError, has_broken_scan, read_header

__all__ = ["ImageCheck", "ImageReader", "check_images", "read_headers", "size_problem"]

logger = logging.getLogger(__name__)

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".webp": "WEBP"}


@dataclass(frozen=True)
class ImageReader:
    """How a loader reads images.

    Attributes:
        name: What users know it by.
        turns: Which orientation it applies: ``"exif"``, ``"pillow"`` (also XMP's) or ``"none"``.
        uses_pillow: Whether Pillow opens the file, which refuses some that others read.
        max_pixels: Most pixels that it reads.
        max_side: Longest side that it reads.
        max_ratio: How often the short side may go into the long one; beyond, resizing leaves no pixel.
        resized_by: The config's key that ``max_ratio`` follows from.
        ignore_hint: How to make it ignore the orientation, as a part of a sentence; empty if it cannot.
        decode: Reads a whole image, or raises; a check tries it on what Pillow does not know. None if there is none.
        full: Whether a check shall decode every image, not only read its header.
    """

    name: str = "the loader"
    turns: str = "exif"
    uses_pillow: bool = False
    max_pixels: float = math.inf
    max_side: float = math.inf
    max_ratio: float = math.inf
    resized_by: str = ""
    ignore_hint: str = ""
    decode: Callable[[str], Any] | None = field(default=None, compare=False)
    full: bool = field(default=False, compare=False)

    def orientation(self, header: ImageHeader) -> int:
        """Return the orientation that this loader applies, 1 to 8."""
        if self.turns == "none":
            return 1
        return header.pillow_orientation if self.turns == "pillow" else header.orientation

    def size(self, header: ImageHeader) -> tuple[int, int]:
        """Return width and height of the image as this loader returns it.

        >>> ImageReader().size(ImageHeader("JPEG", 40, 30, orientation=6))
        (30, 40)
        """
        stored = (header.width, header.height)
        return stored[::-1] if self.orientation(header) >= 5 else stored

    def problem(self, path: str | os.PathLike[str], header: ImageHeader) -> str | None:
        """Return why this loader, or the resizing after it, fails on an image; None if it does not."""
        width, height = header.width, header.height
        is_size = f"{path}: {width} x {height} pixels"
        if self.uses_pillow and header.refused_by_pillow:
            return f"{path}: {self.name} refuses it ({header.refused_by_pillow}); save it without its texts and profile"
        if max(width, height) > self.max_side:
            return f"{is_size}; {self.name} reads sides up to {self.max_side:,.0f}: cut it into tiles"
        if width * height > self.max_pixels:
            return f"{is_size}; {self.name} reads up to {self.max_pixels:,.0f} in all: cut it into tiles, or shrink it"
        if max(width, height) > self.max_ratio * min(width, height):
            return (
                f"{is_size}; {self.resized_by} would leave no pixel of its short side: the long side may be at "
                f"most {self.max_ratio:,.0f} times the short one"
            )
        return None


@dataclass(frozen=True)
class ImageCheck:
    """What :func:`check_images` found.

    Attributes:
        headers: Of each image, or why there is none.
        problems: Of each image what is wrong and what to do, or None.
        warnings: What is unusual but read all the same, a line a kind.
    """

    headers: Sequence[ImageHeader | DataError]
    problems: Sequence[str | None]
    warnings: tuple[str, ...]


def read_headers(paths: Sequence[Path]) -> list[ImageHeader | DataError]:
    """Read the headers of many images, or take them from the cache; see :func:`read_header` and :func:`read_facts`."""
    return read_facts(paths, read_header, key=_key(), pack=lambda found: list(astuple(found)), unpack=_unpack)


def size_problem(
    path: str | os.PathLike[str], header: ImageHeader, reader: ImageReader, expected: tuple[int, int], said_by: str
) -> str | None:
    """Compare the size of an image as it will be read with what its annotation says.

    Args:
        path: The image.
        header: Its header.
        reader: Who will read it.
        expected: Width and height that the annotation says.
        said_by: Where, such as ``"<size> of a.xml"``.

    Returns:
        What is wrong and what to do; None if the sizes are equal.

    Example:
        >>> size_problem("a.jpg", ImageHeader("JPEG", 40, 30), ImageReader(), (30, 40), "<size>")
        'a.jpg: is 40 x 30 pixels, but <size> says 30 x 40: width and height are swapped; correct <size>'
    """
    size, stored = reader.size(header), (header.width, header.height)
    if size == expected:
        return None
    is_size, says = f"is {size[0]} x {size[1]} pixels", f"{said_by} says {expected[0]} x {expected[1]}"
    if expected == stored:
        ignore = f", or {reader.ignore_hint}" if reader.ignore_hint else ""
        return (
            f"{path}: {is_size} as {reader.name} reads it, turned by its orientation tag "
            f"{reader.orientation(header)}, but {says}, its stored pixels: if the annotation was made on the stored "
            f"pixels, remove the tag (exiftool -Orientation= FILE){ignore}; else correct the size"
        )
    if expected == size[::-1]:
        untold = max(header.orientation, header.pillow_orientation)
        if untold >= 5 and reader.orientation(header) < 5:
            return (
                f"{path}: {is_size} as {reader.name} reads it, without regard to its orientation tag {untold}, but "
                f"{says}: turn the pixels (exiftran -ai FILE, or mogrify -auto-orient FILE)"
            )
        return f"{path}: {is_size}, but {says}: width and height are swapped; correct {said_by}"
    return f"{path}: {is_size}, but {says}: take the image that was annotated, or scale the annotation with the size"


def check_images(
    paths: Sequence[Path],
    reader: ImageReader,
    expected: Sequence[tuple[int, int] | None] = (),
    said_by: str = "its annotation",
) -> ImageCheck:
    """Check that images are whole, that a loader reads them, and that they have the size that their annotations say.

    Args:
        paths: The images.
        reader: Who will read them.
        expected: Width and height of each by its annotation, or None where it does not say; nothing for none at all.
        said_by: Where these sizes stand.
    """
    headers = read_headers(paths)
    sizes = expected or [None] * len(paths)
    found = [
        _unread(path, header, reader)
        if isinstance(header, DataError)
        else _problem(path, header, reader, size, said_by)
        for path, header, size in zip(paths, headers, sizes, strict=True)
    ]
    if reader.full:
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # decoders run without the interpreter's lock
            found = list(pool.map(lambda path, problem: problem or _decode_problem(path, reader), paths, found))
    return ImageCheck(headers, found, _warnings(paths, headers, reader, sizes))


def _problem(
    path: Path, header: ImageHeader, reader: ImageReader, expected: tuple[int, int] | None, said_by: str
) -> str | None:
    problem = reader.problem(path, header)
    if problem is None and expected is not None and not _is_turned_tiff(header):
        problem = size_problem(path, header, reader, expected, said_by)
    return problem


def _unread(path: Path, error: DataError, reader: ImageReader) -> str | None:
    """Return what is wrong with an image whose header could not be read; None if the loader reads it all the same."""
    if not isinstance(error, UnknownImageError) or reader.uses_pillow or reader.decode is None:
        return str(error)
    try:
        reader.decode(str(path))
    except Exception as refusal:  # a decoder raises anything
        logger.debug("%s: %s does not read it either: %s", path, reader.name, refusal)
        return str(error)
    return None


def _warnings(
    paths: Sequence[Path],
    headers: Sequence[ImageHeader | DataError],
    reader: ImageReader,
    sizes: Sequence[tuple[int, int] | None],
) -> tuple[str, ...]:
    """Return what is unusual about images but does not keep them from being read, a line a kind."""
    kinds: dict[str, list[Path]] = {}
    for path, header, size in zip(paths, headers, sizes, strict=True):
        if not isinstance(header, DataError):
            for kind in _unusual(path, header, reader, size):
                kinds.setdefault(kind, []).append(path)
    return tuple(f"{len(found)} image(s) {kind}; the first one is {found[0]}" for kind, found in kinds.items())


def _unusual(path: Path, header: ImageHeader, reader: ImageReader, expected: tuple[int, int] | None) -> Iterator[str]:
    suffix, tag = path.suffix.lower(), reader.orientation(header)
    if suffix in FORMATS and FORMATS[suffix] != header.format:
        yield f"named {path.suffix} but of the format {header.format}"
    # No size tells whether an annotation was made on the stored or on the turned pixels.
    if tag in (2, 3, 4) or (tag >= 5 and (expected is None or header.width == header.height)):
        yield (
            f"turned or mirrored by an orientation tag when {reader.name} reads them: make sure that their "
            "annotations were made on the turned image"
        )
    if _is_turned_tiff(header):
        yield "in TIFF with an orientation tag, of which loaders make different things: save them without it"
    if header.trailing:
        yield "with more bytes behind their end, which loaders pass over"


def _is_turned_tiff(header: ImageHeader) -> bool:
    """Return whether Pillow turns it once, code that turns after Pillow twice, and OpenCV even when told not to."""
    return header.format == "TIFF" and max(header.orientation, header.pillow_orientation) > 1


def _decode_problem(path: Path, reader: ImageReader) -> str | None:
    """Decode with Pillow, which says where other decoders fill in what is damaged, and then with the loader's own."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
            if image.format in ("JPEG", "MPO") and has_broken_scan(path):
                return f"{path}: damaged, its pixels hold bytes that cannot stand there"
    except (Image.DecompressionBombError, UnidentifiedImageError, ValueError) as error:
        logger.debug("%s: only its own loader may decode it: %s", path, error)
    except Exception as error:  # damaged bytes make decoders raise anything
        return f"{path}: damaged, its pixels cannot be decoded ({first_line(error)})"
    try:
        if reader.decode is not None:
            reader.decode(str(path))
    except Exception as error:
        return f"{path}: damaged, {reader.name} cannot decode it ({first_line(error)})"
    return None


def _key() -> str:
    import PIL

    return f"image header {HEADER_VERSION}, Pillow {PIL.__version__}"


def _unpack(values: list[Any]) -> ImageHeader:
    kinds = [type(getattr(_EXAMPLE, each.name)) for each in fields(ImageHeader)]
    if [type(value) for value in values] != kinds or min(values[1:5]) < 1:
        raise ValueError("not a header")
    return ImageHeader(*values)


_EXAMPLE = ImageHeader("JPEG", 1, 1)
