"""Run lengths of masks (RLE) looked at before compiled code gets them, which runs for ever where they do not add up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .typed_json import shown

__all__ = ["LARGEST", "runs_problem", "size_problem", "sum_problem", "sums_of_compressed"]

LARGEST = 2**30  # pixels of an image, as OpenCV's default; run lengths are unsigned 32-bit numbers
DIGITS = 7  # of five bits, in one run length


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
    digits = np.frombuffer(b"".join(counts[place] for place in whole), np.uint8) - np.uint8(48)  # wraps below 0
    last = np.flatnonzero((digits & 32) == 0)
    ends = np.cumsum([len(counts[place]) for place in whole])
    first_run = np.concatenate([[0], np.searchsorted(last, ends[:-1])])
    mask_of = np.repeat(np.arange(len(whole)), np.diff(first_run, append=len(last)))
    values, too_long = _numbers(digits, last)
    runs = _added_up(values, first_run, mask_of)
    wrong = np.zeros(len(whole), bool)
    wrong[mask_of[too_long | (runs < 0) | (runs > LARGEST)]] = True
    wrong[np.searchsorted(ends, np.flatnonzero(digits > 63), side="right")] = True
    sums[whole] = np.where(wrong, -1, np.add.reduceat(runs, first_run))
    return sums


def _numbers(digits: NDArray[np.uint8], last: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the numbers whose last digits are at ``last``, and which have too many digits."""
    lengths = np.diff(last, prepend=-1)
    values = (digits[last] & 31).astype(np.int64)
    values -= 32 * (values > 15)  # the highest bit is the sign
    for place in range(1, min(int(lengths.max()), DIGITS)):
        longer = np.flatnonzero(lengths > place)
        values[longer] = 32 * values[longer] + (digits[last[longer] - place] & 31)
    return values, lengths > DIGITS


def _added_up(values: NDArray[np.int64], first_run: NDArray[np.int64], mask_of: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return run lengths from their differences to the one before the last, from the fourth of a mask on."""
    place = np.arange(len(values)) - first_run[mask_of]
    runs: NDArray[np.int64] = values.copy()
    # The first is alone; the second, fourth, sixth ... add up, and so do the third, fifth ...
    for chosen in (place % 2 == 1, (place % 2 == 0) & (place > 0)):
        total = np.cumsum(np.where(chosen, values, 0))
        # Of a mask's first run nothing is added up yet.
        runs[chosen] = (total - total[first_run][mask_of])[chosen]
    return runs


def _is_whole(value: Any) -> bool:
    # A bool is an int, and no number in JSON.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1
