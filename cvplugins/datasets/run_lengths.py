"""Run lengths of masks (RLE) looked at before compiled code gets them, which runs for ever where they do not add up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .typed_json import shown

__all__ = ["LARGEST", "runs_problem", "size_problem", "sum_problem", "sums_of_compressed"]

LARGEST = 2**30  # pixels of an image, as OpenCV's default; run lengths are unsigned 32-bit numbers
DIGITS = 6  # of five bits, in one run length


def size_problem(size: Any, height: int, width: int) -> str | None:
    """Return what is wrong with the size of run lengths in an image, of unknown size if that is 0; None if nothing."""
    whole = isinstance(size, (list, tuple)) and len(size) == 2 and all(map(_is_whole, size))
    if not whole or min(size) < 1 or size[0] * size[1] > LARGEST:
        return f"has the size {shown(size)}; expected [height, width] of the image"
    if height and width and (size[0], size[1]) != (height, width):
        swapped = " (height and width are swapped)" if (size[1], size[0]) == (height, width) else ""
        return f"has the size {shown(size)}, but the image is {height} x {width} (height x width){swapped}"
    return None


def runs_problem(counts: Sequence[Any], size: Sequence[int]) -> str | None:
    """Return what is wrong with uncompressed run lengths; None if nothing.

    >>> runs_problem([0, 4, 7], [3, 4])
    'has counts whose sum is 11; expected 12, which is 3 x 4'
    """
    for count in counts:
        if not _is_whole(count) or count < 0:
            return f"has {shown(count)} in its counts; expected whole numbers of at least 0"
    return sum_problem(int(sum(counts)), size)


def sum_problem(total: int, size: Sequence[int]) -> str | None:
    """Return what is wrong with the sum of run lengths, -1 if they are none; None if nothing."""
    if total < 0:
        return "has counts that are no compressed run lengths"
    if total != size[0] * size[1]:
        return f"has counts whose sum is {total}; expected {size[0] * size[1]:.0f}, which is {size[0]:g} x {size[1]:g}"
    return None


def sums_of_compressed(counts: Sequence[bytes]) -> NDArray[np.int64]:
    """Return the sum of each mask's compressed run lengths, -1 where they are not what pycocotools writes.

    A run length is written in digits of five bits, the lowest first, from the character ``0`` on; 32 is added where
    more digits follow. From the fourth on, each is the difference to the one before the last.

    >>> sums_of_compressed([b"04db0", b"04d"]).tolist()
    [600, -1]
    """
    sums = np.full(len(counts), -1, np.int64)
    # Each has to end with the last digit of a number: compiled code reads on else.
    whole = [place for place, each in enumerate(counts) if each and each[-1] - 48 in range(32)]
    if not whole:
        return sums
    lengths = np.array([len(counts[place]) for place in whole])
    digits = np.frombuffer(b"".join(counts[place] for place in whole), np.uint8).astype(np.int64) - 48
    mask_of_digit = np.repeat(np.arange(len(whole)), lengths)
    last = np.flatnonzero((digits & 32) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    exponent = np.arange(len(digits)) - np.repeat(first, last - first + 1)
    values = np.add.reduceat((digits & 31) << (5 * np.minimum(exponent, DIGITS)), first)
    values -= ((digits[last] & 16) > 0).astype(np.int64) << (5 * np.minimum(exponent[last], DIGITS) + 5)
    mask_of = mask_of_digit[first]
    wrong = np.zeros(len(whole), bool)
    wrong[mask_of_digit[(digits < 0) | (digits > 63) | (exponent > DIGITS)]] = True
    runs = _added_up(values, mask_of)
    wrong[mask_of[(runs < 0) | (runs > LARGEST)]] = True
    sums[whole] = np.where(wrong, -1, np.bincount(mask_of, runs, len(whole)).astype(np.int64))
    return sums


def _added_up(values: NDArray[np.int64], mask_of: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return run lengths from their differences to the one before the last, from the fourth of a mask on."""
    place = np.arange(len(values)) - np.searchsorted(mask_of, mask_of)
    # The first is alone; the second, fourth, sixth ... add up, and so do the third, fifth ...
    chain = 3 * mask_of + np.where(place == 0, 0, 1 + place % 2)
    order = np.argsort(chain, kind="stable")
    total = np.cumsum(values[order])
    start = np.searchsorted(chain[order], chain[order])
    runs = np.empty_like(values)
    runs[order] = total - total[start] + values[order][start]
    return runs


def _is_whole(value: Any) -> bool:
    # A bool is an int, and no number in JSON.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1
