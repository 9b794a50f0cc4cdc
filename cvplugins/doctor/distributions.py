"""What is installed, read from its metadata: nothing is imported."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .versions import Requirement, normalised, parse_requirement

__all__ = ["Distribution", "owners", "read_distributions"]


@dataclass(frozen=True)
class Distribution:
    """An installed distribution.

    Attributes:
        name: Its name, normalised: lower case, with hyphens.
        version: Its version.
        packages: The names of the packages that it installs to import.
        requirements: What it says that it needs.
    """

    name: str
    version: str
    packages: tuple[str, ...] = ()
    requirements: tuple[Requirement, ...] = ()


def read_distributions(path: Sequence[str] | None = None) -> dict[str, Distribution]:
    """Return what is installed by name; the first of two on the path counts, as for Python.

    Args:
        path: Folders to look in; ``sys.path`` if None.
    """
    found: dict[str, Distribution] = {}
    for each in importlib.metadata.distributions(path=list(sys.path if path is None else path)):
        name = normalised(each.metadata["Name"] or "")
        if name and name not in found:  # a folder that an interrupted installation left has no name
            requirements = tuple(map(parse_requirement, each.requires or ()))
            found[name] = Distribution(name, each.version or "0", _packages(each), requirements)
    return found


def owners(distributions: Mapping[str, Distribution], package: str) -> list[Distribution]:
    """Return the distributions that install a package; several overwrite each other's files.

    >>> names = ("opencv-python", "opencv-python-headless")
    >>> [each.name for each in owners({name: Distribution(name, "5.0", ("cv2",)) for name in names}, "cv2")]
    ['opencv-python', 'opencv-python-headless']
    """
    return [each for each in distributions.values() if package in each.packages]


def _packages(distribution: importlib.metadata.Distribution) -> tuple[str, ...]:
    """Return the folders with an ``__init__.py``; what an editable installation says, which records no such file."""
    record = distribution.read_text("RECORD") or ""
    names = set(re.findall(r"^([A-Za-z_]\w*)/__init__\.py,", record, flags=re.MULTILINE))
    # Whoever adds a module to another one's package names that package in top_level.txt, but does not own it.
    if not names and not re.search(r"^[A-Za-z_]\w*/.*\.(py|so|pyd),", record, flags=re.MULTILINE):
        names = set((distribution.read_text("top_level.txt") or "").split())
    return tuple(sorted(names))
