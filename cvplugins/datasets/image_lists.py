"""Lists of images: one reader for all that ``ImageSets/Main`` holds, and for what editors leave in such files."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cvplugins.errors import DataError

from .regular_files import stat_regular

__all__ = ["ImageList", "image_names", "read_image_list"]

LISTED = 10
# The second column of VOC's per-class lists: 1 the class is there, -1 it is not, 0 only difficult objects of it are.
FLAGGED = re.compile(r"(.*\S)\s+(?:-1|0|1)")
AROUND = "\ufeff \t\f\v"
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class ImageList:
    """The images that a file names.

    Attributes:
        ids: In the file's order.
        flagged: How many have a second column of 1, 0 or -1.
        plain: Whether a reader that takes every line as it is gets the same ids.
    """

    ids: tuple[str, ...]
    flagged: int
    plain: bool


def read_image_list(
    path: str | os.PathLike[str], annotations: str | os.PathLike[str], suffix: str = ".xml"
) -> ImageList:
    """Read a list of one image id a line.

    A byte order mark, blanks and tabs around an id, and empty lines are passed over. So is the second column of
    per-class lists such as ``dog_train.txt``: all of their images are taken, as the VOC devkit's own code does
    (``VOCevaldet.m`` and ``example_detector.m`` read both columns and go through every image).

    Args:
        path: A text file in UTF-8, or in UTF-16 with a byte order mark.
        annotations: Folder of a file for each id, which tells an image called ``photo 1`` from an image ``photo`` with
            the flag 1.
        suffix: How the names of these files go on behind the id.

    Raises:
        DataError: The list is missing, not text, empty, or names an image twice.
    """
    path = Path(path)
    line_of: dict[str, int] = {}
    flagged = 0
    raw = _lines(path)
    for number, text, image_id in _parsed(raw, Path(annotations), suffix):
        flagged += image_id != text
        if image_id in line_of:
            raise DataError(f"{path}, line {number}: names image {image_id} again (first in line {line_of[image_id]})")
        line_of[image_id] = number
    if not line_of:
        raise DataError(f"{path}: names no image")
    return ImageList(tuple(line_of), flagged, plain=list(line_of) == raw)


def image_names(path: str | os.PathLike[str], folder: str | os.PathLike[str], suffix: str) -> tuple[list[str], bool]:
    """Return the names in a list that may hold one twice, and whether a reader that strips its lines gets the same.

    Args:
        path: As in :func:`read_image_list`.
        folder: Of the images.
        suffix: How their files go on behind the name.

    Raises:
        DataError: The list is missing or not text.
    """
    raw = _lines(Path(path))
    names = [name for _, _, name in _parsed(raw, Path(folder), suffix)]
    return names, names == [line.strip() for line in raw]


def _parsed(lines: list[str], folder: Path, suffix: str) -> Iterator[tuple[int, str, str]]:
    """Yield number, text and image of each line that is not empty."""
    for number, line in enumerate(lines, start=1):
        text = line.strip(AROUND)
        if text:
            yield number, text, _without_flag(text, folder, suffix)


def _lines(path: Path) -> list[str]:
    """Return the lines of a text file without their ends; a byte order mark stays, except that of UTF-16."""
    if path.exists():
        stat_regular(path, "list of images")
    try:
        content = path.read_bytes()
        text = content.decode("utf-16" if content.startswith(UTF16) else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file") from error
    except OSError as error:
        there = ", ".join(sorted(other.stem for other in path.parent.glob("*.txt"))[:LISTED]) or "none"
        raise DataError(f"{path}: cannot read the split, {error.strerror}; lists in its folder: {there}") from error
    lines = re.split(r"\r\n|\n|\r", text)
    if content.startswith(UTF16):
        lines[0] = f"\ufeff{lines[0]}"  # another reader would not get the lines at all
    return lines[:-1] if lines[-1] == "" else lines


def _without_flag(line: str, annotations: Path, suffix: str) -> str:
    match = FLAGGED.fullmatch(line)
    return line if match is None or (annotations / f"{line}{suffix}").is_file() else match[1]
