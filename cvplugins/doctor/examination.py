"""Collect the facts once, and let every part judge them."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from .distributions import Distribution, read_distributions
from .findings import Finding, Report, Section, error
from .imports import Outcome, Probe, try_imports
from .installer import Installer, this_installer
from .machine import Machine, read_machine

__all__ = ["Facts", "Part", "collect", "examine"]

T = TypeVar("T")
REPORT_IT = "report this line to the developers of cvplugins"


@dataclass(frozen=True)
class Facts:
    """What the checks judge, all of it plain data.

    Attributes:
        machine: Its numbers.
        distributions: What is installed, by normalised name.
        outcomes: How the probes went, by their names.
        environment: Environment variables.
        installer: Writes commands.
        python: Version of Python.
        has_python_headers: Whether C code can be compiled for this Python.
        problems: What could not be found out, and why.
        pkg_resources_users: Packages that import ``pkg_resources`` although there is none.
    """

    machine: Machine = field(default_factory=Machine)
    distributions: Mapping[str, Distribution] = field(default_factory=dict)
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    installer: Installer = field(default_factory=Installer)
    python: tuple[int, int, int] = (3, 11, 0)
    has_python_headers: bool = True
    problems: tuple[str, ...] = ()
    pkg_resources_users: tuple[str, ...] = ()

    def outcome(self, name: str) -> Outcome:
        """Return how a probe went; as if nothing were installed if it was not tried."""
        return self.outcomes.get(name, Outcome("missing"))

    def version(self, distribution: str) -> str:
        """Return the version of a distribution, empty if it is not installed."""
        found = self.distributions.get(distribution)
        return found.version if found else ""

    def lacks_pkg_resources(self, packages: Iterable[str]) -> str:
        """Return what is missing, if one of some packages imports ``pkg_resources`` and there is none; else empty."""
        users = [package for package in packages if package in self.pkg_resources_users]
        version = self.version("setuptools")
        found = f"setuptools {version} has no pkg_resources" if version else "there is no setuptools"
        return f"{found}, which {' and '.join(users)} imports" if users else ""

    @property
    def torch_version(self) -> str:
        """The version of torch, with what its build adds, such as ``+cpu``, which its metadata may lack."""
        return str(self.outcome("torch").answers.get("version", "")) or self.version("torch")

    @property
    def has_gpu(self) -> bool:
        """Whether the driver or torch shows a GPU."""
        return bool(self.machine.gpus or self.outcome("torch").answers.get("devices"))


@dataclass(frozen=True)
class Part:
    """A subject of the doctor.

    Attributes:
        title: Heading of its section.
        check: Judges the facts.
        probes: What it wants to be tried; after those of the parts before it.
        packages: Packages in whose files a use of ``pkg_resources`` is searched for.
    """

    title: str
    check: Callable[[Facts], Sequence[Finding]]
    probes: tuple[Probe, ...] = ()
    packages: tuple[str, ...] = ()


def examine(parts: Iterable[Part]) -> Report:
    """Try everything, and return what each part says of it; a check that fails is a finding too."""
    parts = list(parts)
    facts = collect(parts)
    sections = [Section(part.title, _checked(part, facts)) for part in parts]
    if facts.problems:
        sections.append(Section("Doctor", [error("facts", problem, REPORT_IT) for problem in facts.problems]))
    return Report(sections)


def collect(parts: Sequence[Part]) -> Facts:
    """Return the facts about this machine and this environment."""
    problems: list[str] = []

    def tried(read: Callable[[], T], otherwise: T) -> T:
        """Return what is read; files of a broken installation can be anything."""
        try:
            return read()
        except Exception as problem:
            problems.append(f"{type(problem).__name__}: {problem}")
            return otherwise

    packages = [package for part in parts for package in part.packages]
    probes = [probe for part in parts for probe in part.probes]
    return Facts(
        machine=tried(read_machine, Machine()),
        distributions=tried(read_distributions, {}),
        outcomes=tried(lambda: try_imports(probes), {}),
        environment=dict(os.environ),
        installer=tried(this_installer, Installer()),
        python=sys.version_info[:3],
        has_python_headers=Path(sysconfig.get_path("include"), "Python.h").is_file(),
        pkg_resources_users=tried(lambda: _pkg_resources_users(packages), ()),
        problems=tuple(problems),  # the last one, for what stands above fills it
    )


def _checked(part: Part, facts: Facts) -> Sequence[Finding]:
    try:
        return part.check(facts)
    except Exception as problem:
        value = f"the check of this part failed: {type(problem).__name__}: {problem}"
        return [error("doctor", value, REPORT_IT)]


def _pkg_resources_users(packages: Iterable[str]) -> tuple[str, ...]:
    if importlib.util.find_spec("pkg_resources") is not None:
        return ()
    return tuple(package for package in packages if any(map(_uses_pkg_resources, _files(package))))


def _files(package: str) -> Iterable[Path]:
    spec = importlib.util.find_spec(package)
    # A folder of this name without an __init__.py, such as a checkout, is not the package.
    folders = spec.submodule_search_locations if spec is not None and spec.origin is not None else None
    return (file for folder in folders or () for file in Path(folder).rglob("*.py"))


def _uses_pkg_resources(file: Path) -> bool:
    text = file.read_text(encoding="utf-8", errors="replace")
    return re.search(r"^\s*(import|from) pkg_resources\b", text, flags=re.MULTILINE) is not None
