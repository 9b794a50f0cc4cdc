"""Names that are a slip of the hand away from the one that was meant."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["slip_of"]

SHORTEST = 4  # below, other names are as close by chance: p2 and p3
LONG = 10


def slip_of(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that was meant if ``name`` is a slip of the hand away from it, else None.

    A slip is one letter too many, one too few, another one, or two that changed places; in a long name there may be two
    of them. Names that differ in digits alone, and those that are known, are meant as they are.

    >>> slip_of("trian_cfg", ["train_cfg", "val_cfg"])
    'train_cfg'
    >>> slip_of("data_root_07", ["data_root"]), slip_of("stage2", ["stage1"])
    (None, None)
    """
    known = list(known)
    if name in known or len(name) < SHORTEST:
        return None
    without_digits = _letters(name)
    near = [
        (slips, each)
        for each in known
        if len(each) >= SHORTEST
        and _letters(each) != without_digits
        and (slips := _slips(name, each)) <= (2 if min(len(name), len(each)) >= LONG else 1)
    ]
    return min(near)[1] if near else None


def _letters(name: str) -> str:
    return "".join(letter for letter in name if not letter.isdigit())


def _slips(one: str, other: str) -> int:
    """Return how many letters have to be added, left out, replaced or swapped with the next one."""
    if abs(len(one) - len(other)) > 2:
        return 3
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        before, above, row = row, before, [i]
        for j, wanted in enumerate(other, start=1):
            best = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                best = min(best, above[j - 2] + 1)
            row.append(best)
    return row[-1]
