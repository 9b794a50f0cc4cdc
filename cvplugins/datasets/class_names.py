"""Class names: which of them occur, which are misspelt, and whether two data sets number them alike."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cvplugins.errors import DataError

__all__ = [
    "ClassCounts",
    "bare_name",
    "check_class_names",
    "check_objects",
    "check_same_classes",
    "check_spelling",
    "missing_classes",
]

LISTED = 10
CLOSE = 0.75  # from which likeness on, by difflib, one name may be meant by another


@dataclass
class ClassCounts:
    """How many objects of each class there are.

    Attributes:
        usable: Objects that training learns from, by class.
        unusable: Objects that it passes over (difficult, crowds, empty boxes), by class.
        others: Objects of names that are no class, by name.
        places: The first file that has such a name.
    """

    usable: Counter[str] = field(default_factory=Counter)
    unusable: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    places: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, usable: bool) -> None:
        """Count an object of a class."""
        (self.usable if usable else self.unusable)[name] += 1

    def leave_out(self, name: str, place: str, count: int = 1) -> None:
        """Count an object whose name is no class."""
        self.others[name] += count
        self.places.setdefault(name, place)

    def merge(self, other: ClassCounts) -> None:
        """Add the objects of another data set."""
        self.usable.update(other.usable)
        self.unusable.update(other.unusable)
        self.others.update(other.others)
        self.places = other.places | self.places

    def __str__(self) -> str:
        known = sum(self.usable.values()) + sum(self.unusable.values())
        counted = f"{known} {'object' if known == 1 else 'objects'}"
        if not self.others:
            return counted
        return f"{counted}; {sum(self.others.values())} of other classes are left out: {_numbers(self.others)}"


def check_objects(
    classes: Sequence[str], counts: Iterable[ClassCounts], place: str, is_trained: bool = True
) -> str | None:
    """Look at the objects of all data sets that are read together.

    Args:
        classes: The names.
        counts: What each of them holds.
        place: What messages call them together.
        is_trained: Whether training learns from them.

    Returns:
        A warning of classes without an object to learn from; None if there is nothing to say.

    Raises:
        DataError: A name is misspelt, or there is no object to learn from.
    """
    together = ClassCounts()
    for each in counts:
        together.merge(each)
    check_spelling(classes, together, place)
    missing = missing_classes(classes, together, place) if is_trained else []
    return f"{place}: there is no object to learn from of the classes {', '.join(missing)}" if missing else None


def check_class_names(classes: Any, key: str) -> tuple[str, ...]:
    """Return class names as a config has them.

    Args:
        classes: What the config says.
        key: Where it says it.

    Raises:
        DataError: They are one string, hold something that is none, or name a class twice.

    Example:
        >>> check_class_names("helmet", "metainfo.classes")
        Traceback (most recent call last):
        cvplugins.errors.DataError: metainfo.classes is the string 'helmet', whose letters would be the classes; write \
('helmet',), with a comma
    """
    if isinstance(classes, str):
        raise DataError(
            f"{key} is the string {classes!r}, whose letters would be the classes; write ({classes!r},), with a comma"
        )
    if not isinstance(classes, Sequence) or not classes:
        raise DataError(f"{key} is {classes!r}, not a list of class names")
    for number, name in enumerate(classes):
        if not isinstance(name, str):
            raise DataError(f"{key}[{number}] is {name!r}, not a name; put it in quotes")
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        raise DataError(f"{key} names {twice[0]!r} twice")
    return tuple(classes)


def check_same_classes(classes: Sequence[str], place: str, others: Sequence[str], other_place: str) -> None:
    """Compare what each label means in two data sets; names that differ in case, blanks or hyphens are the same.

    Raises:
        DataError: They differ; the message shows the first label that does.

    Example:
        >>> check_same_classes(("Person", "car"), "train", ("person", "car"), "val")
        >>> check_same_classes(("cat", "dog"), "train", ("dog", "cat"), "val")
        Traceback (most recent call last):
        cvplugins.errors.DataError: label 0 is 'cat' in train, but 'dog' in val; name the same classes in the same order
    """
    for label, (name, other) in enumerate(zip(classes, others, strict=False)):
        if bare_name(name) != bare_name(other):
            raise DataError(
                f"label {label} is {name!r} in {place}, but {other!r} in {other_place}; name the same classes in the "
                "same order"
            )
    if len(classes) != len(others):
        raise DataError(f"there are {len(classes)} classes in {place}, but {len(others)} in {other_place}")


def check_spelling(classes: Sequence[str], counts: ClassCounts, place: str) -> None:
    """Look for objects that would be left out because a name is misspelt.

    Args:
        classes: The names.
        counts: What the data holds.
        place: What messages call the data.

    Raises:
        DataError: A name differs from a class in case, blanks or hyphens alone; or a class occurs nowhere, and a
            similar name that is no class does.
    """
    by_bare = {bare_name(name): name for name in classes}
    for name in counts.others:
        if bare_name(name) in by_bare:
            raise DataError(
                f"{counts.places[name]}: an object's name {name!r} is not the class {by_bare[bare_name(name)]!r}, so "
                "it would be left out; write them alike"
            )
    for name in classes:
        is_there = counts.usable[name] or counts.unusable[name]
        close = [] if is_there else _close(name, counts.others)
        if close:
            meant = " or ".join(f"{each!r} ({counts.others[each]} objects, left out)" for each in close)
            raise DataError(f"{place}: the class {name!r} occurs nowhere; did you mean {meant}?")


def missing_classes(classes: Sequence[str], counts: ClassCounts, place: str) -> list[str]:
    """Return the classes that training learns nothing about.

    Args:
        classes: The names.
        counts: What the training's data holds.
        place: What messages call the data.

    Raises:
        DataError: There is no object at all.
    """
    missing = [name for name in classes if not counts.usable[name]]
    if len(missing) == len(classes):
        there = f"; the objects there: {_numbers(counts.others)}" if counts.others else ""
        raise DataError(f"{place}: no object to learn from of the classes {_some(classes)}{there}")
    return missing


def _close(name: str, others: Counter[str]) -> list[str]:
    folded = {each.casefold(): each for each in others}
    return [folded[each] for each in difflib.get_close_matches(name.casefold(), folded, n=2, cutoff=CLOSE)]


def bare_name(name: str) -> str:
    """Return a name without its case, blanks and hyphens."""
    return re.sub(r"[\W_]+", "", name).casefold() or name


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _numbers(counts: Counter[str]) -> str:
    more = f" and {len(counts) - LISTED} more" if len(counts) > LISTED else ""
    return ", ".join(f"{name} ({count})" for name, count in counts.most_common(LISTED)) + more
