"""Images that two splits share: the same file, the same bytes, or nearly the same picture.

Pictures are compared by two difference hashes of 64 bits each (dHash): whether the brightness rises from one cell of a
coarse grid to the next, along the rows and along the columns. A copy that was scaled, compressed again or made brighter
keeps most bits; of unlike photographs about half of the 128 bits differ.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvplugins.datasets.file_facts import read_facts
from cvplugins.datasets.regular_files import read_bytes
from cvplugins.errors import DataError, first_line

__all__ = ["NEAR", "Fingerprint", "Leak", "find_leaks", "fingerprints"]

NEAR = 10  # bits of the 128 that may differ
CELLS = 8
DRAFT = 8 * (CELLS + 1)  # a JPEG is decoded no larger than is needed
FLAT = 8  # bits below which a picture has no structure, and its brightness has to agree too
CLOSE_BRIGHTNESS = 8
BLOCK = 256  # rows compared at once
VERSION = 1  # part of the key of kept fingerprints


@dataclass(frozen=True)
class Fingerprint:
    """What tells two images apart: digest of the bytes, hashes of rows and columns, mean brightness."""

    digest: str
    rows: int
    columns: int
    brightness: int


@dataclass(frozen=True)
class Leak:
    """Two images of two splits.

    Attributes:
        image: Of the first split.
        other: Of the second one.
        kind: ``"same file"``, ``"same bytes"`` or ``"near duplicate"``.
        bits: How many bits of the 128 differ.
    """

    image: Path
    other: Path
    kind: str
    bits: int = 0


def fingerprints(paths: Sequence[Path]) -> list[Fingerprint | DataError]:
    """Return the fingerprint of each image, or why it cannot be decoded; kept between runs."""
    return read_facts(
        paths,
        _fingerprint,
        key=f"image fingerprint {VERSION}",
        pack=lambda found: [found.digest, found.rows, found.columns, found.brightness],
        unpack=_unpack,
    )


def find_leaks(first: Sequence[Path], second: Sequence[Path], near: int = NEAR) -> list[Leak]:
    """Return the images of one split that are in another one, too.

    Args:
        first: Images of a split. What cannot be decoded is passed over.
        second: Images of another one.
        near: How many bits of the 128 may differ.

    Returns:
        At most one pair for each image of the second: the closest.
    """
    left, right = _known(first), _known(second)
    if not left or not right:
        return []
    by_file = {path.resolve(): path for path, _ in left}
    by_digest = {found.digest: path for path, found in reversed(left)}
    distances, nearest = _closest([found for _, found in left], [found for _, found in right], near)
    leaks = []
    for place, (path, found) in enumerate(right):
        if path.resolve() in by_file:
            leaks.append(Leak(by_file[path.resolve()], path, "same file"))
        elif found.digest in by_digest:
            leaks.append(Leak(by_digest[found.digest], path, "same bytes"))
        elif distances[place] <= near:
            leaks.append(Leak(left[nearest[place]][0], path, "near duplicate", int(distances[place])))
    return leaks


def _known(paths: Sequence[Path]) -> list[tuple[Path, Fingerprint]]:
    found = fingerprints(paths)
    return [(path, each) for path, each in zip(paths, found, strict=True) if isinstance(each, Fingerprint)]


def _closest(
    left: Sequence[Fingerprint], right: Sequence[Fingerprint], near: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the distance of each right one to its closest left one, and which that is.

    All pairs are compared, in blocks: 100 million take about 2 s, and nothing is missed.
    """
    rows, columns = (np.array([getattr(each, key) for each in left], np.uint64) for key in ("rows", "columns"))
    brightness = np.array([each.brightness for each in left], np.int64)
    flat = _bits(rows) + _bits(columns) <= FLAT
    distances, nearest = np.full(len(right), 2 * CELLS * CELLS + 1, np.int64), np.zeros(len(right), np.int64)
    for start in range(0, len(right), BLOCK):
        own = right[start : start + BLOCK]
        own_rows, own_columns = (np.array([getattr(x, key) for x in own], np.uint64) for key in ("rows", "columns"))
        bits = _bits(own_rows[:, None] ^ rows).astype(np.int64) + _bits(own_columns[:, None] ^ columns)
        own_brightness = np.array([each.brightness for each in own], np.int64)
        unlike = flat & (np.abs(own_brightness[:, None] - brightness) > CLOSE_BRIGHTNESS)
        bits[unlike] = 2 * CELLS * CELLS + 1
        nearest[start : start + BLOCK] = bits.argmin(axis=1)
        distances[start : start + BLOCK] = bits.min(axis=1)
    return distances, nearest


def _bits(values: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Return how many bits are set."""
    count = getattr(np, "bitwise_count", None)  # NumPy 2
    if count is not None:
        return np.asarray(count(values))
    parts = np.ascontiguousarray(values).view(np.uint16).reshape(*values.shape, 4)
    return np.asarray(_TABLE[parts].sum(axis=-1, dtype=np.uint8))


_TABLE = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2), axis=1).sum(
    axis=1, dtype=np.uint8
)


def _fingerprint(path: Path) -> Fingerprint:
    from PIL import Image, ImageOps

    content = read_bytes(path, "image")
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.draft("L", (DRAFT, DRAFT))
            upright = ImageOps.exif_transpose(image)
            cells = np.asarray(upright.convert("L").resize((CELLS + 1, CELLS + 1), Image.Resampling.BOX), np.int16)
    except Exception as error:  # damaged bytes make decoders raise anything
        raise DataError(f"{path}: cannot be decoded ({first_line(error)})") from error
    rows = cells[:CELLS, 1:] > cells[:CELLS, :-1]
    columns = cells[1:, :CELLS] > cells[:-1, :CELLS]
    return Fingerprint(digest, _number(rows), _number(columns), int(cells.mean()))


def _number(bits: NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _unpack(values: list[Any]) -> Fingerprint:
    if [type(value) for value in values] != [str, int, int, int] or not 0 <= max(values[1:3]) < 1 << 64:
        raise ValueError("not a fingerprint")
    return Fingerprint(*values)
