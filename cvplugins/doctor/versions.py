"""Compare versions, and read what a distribution says that it needs, with Python's own library alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Requirement", "fits", "is_older", "parse_requirement", "version_key"]

PRE_RELEASES = {"dev": -4, "a": -3, "b": -2, "rc": -1}


def version_key(version: str) -> tuple[int, ...]:
    """Return numbers that sort as the versions do; a local part, such as ``+cpu``, counts for nothing.

    >>> version_key("2.0.0rc4") < version_key("2.0.0") == version_key("2.0+cu126") < version_key("2.0.1")
    True
    """
    version = version.partition("+")[0].strip().lower()
    release = re.match(r"v?(\d+(?:\.\d+)*)", version)
    numbers = [int(each) for each in release.group(1).split(".")] if release else []
    pre = re.search(r"(dev|a|b|rc)\.?(\d*)", version[release.end() :] if release else "")
    stage = (PRE_RELEASES[pre.group(1)], int(pre.group(2) or 0)) if pre else (0, 0)
    return (*numbers[:4], *[0] * (4 - len(numbers)), *stage)


def is_older(version: str, than: str) -> bool:
    """Return whether a version comes before another one.

    >>> is_older("2.0.1", than="2.1")
    True
    """
    return version_key(version) < version_key(than)


def fits(version: str, specifiers: str) -> bool:
    """Return whether a version is in a range; a specifier of another kind than these excludes nothing.

    >>> fits("2.1.0", ">=2.0.0rc4,<2.2.0"), fits("2.2.0", ">=2.0.0rc4,<2.2.0"), fits("2.12.0+cpu", "==2.12.0")
    (True, False, True)
    >>> fits("0.27.1", "==0.27.*"), fits("0.28.0", "==0.27.*")
    (True, False)
    """
    return all(_fits_one(version, each.strip()) for each in specifiers.split(",") if each.strip())


def _fits_one(version: str, specifier: str) -> bool:
    match = re.fullmatch(r"(>=|<=|==|!=|<|>)\s*([\w.+]+?)(\.\*)?", specifier)
    if match is None:
        return True
    sign, bound, star = match.groups()
    left, right = version_key(version), version_key(bound)
    if star:
        length = bound.count(".") + 1
        left, right = left[:length], right[:length]
    comparisons = {
        ">=": left >= right,
        "<=": left <= right,
        "==": left == right,
        "!=": left != right,
        "<": left < right,
        ">": left > right,
    }
    return comparisons[sign]


@dataclass(frozen=True)
class Requirement:
    """What a distribution says that it needs.

    Attributes:
        name: The other distribution, normalised.
        specifiers: The range, such as ``">=2.0,<3"``; empty for any.
        extra: The extra that asks for it; empty if it is always needed.
        marker: The condition as it is written.
    """

    name: str
    specifiers: str
    extra: str = ""
    marker: str = ""


def parse_requirement(text: str) -> Requirement:
    """Read a line of ``Requires-Dist``.

    >>> parse_requirement('torch (==2.12.0)')
    Requirement(name='torch', specifiers='==2.12.0', extra='', marker='')
    >>> parse_requirement('Flask_X[async]<1.0,>=0.8; extra == "all"').extra
    'all'
    """
    needed, _, marker = text.partition(";")
    match = re.match(r"\s*([\w.-]+)\s*(?:\[[^]]*\])?\s*\(?([^)@]*)\)?", needed)
    name, specifiers = match.groups() if match else (needed, "")
    extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", marker)
    return Requirement(normalised(name), specifiers.strip(), extra.group(1) if extra else "", marker.strip())


def normalised(name: str) -> str:
    """Return a distribution's name as registries compare it.

    >>> normalised("Flask_X.y")
    'flask-x-y'
    """
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
