"""What the doctor says: findings, in sections, and the verdict over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

__all__ = ["Finding", "Report", "Section", "Status", "error", "ok", "warning"]


class Status(str, Enum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's screen.

    Attributes:
        name: What was looked at.
        status: Whether that is well.
        value: What was found.
        advice: The next step, a command or a setting; empty if there is nothing to do.
    """

    name: str
    status: Status
    value: str
    advice: str = ""


def ok(name: str, value: str, advice: str = "") -> Finding:
    """Return a finding that asks for nothing; it may say how to get what is not needed.

    >>> ok("cores", "2").status.value
    'ok'
    """
    return Finding(name, Status.OK, value, advice)


def warning(name: str, value: str, advice: str) -> Finding:
    """Return a finding that may slow a training or stop it later."""
    return Finding(name, Status.WARNING, value, advice)


def error(name: str, value: str, advice: str) -> Finding:
    """Return a finding that stops a training."""
    return Finding(name, Status.ERROR, value, advice)


@dataclass(frozen=True)
class Section:
    """Findings about one subject."""

    title: str
    findings: Sequence[Finding]


@dataclass(frozen=True)
class Report:
    """All that the doctor found."""

    sections: Sequence[Section]

    @property
    def findings(self) -> list[Finding]:
        """The findings of all sections."""
        return [finding for section in self.sections for finding in section.findings]

    def count(self, status: Status) -> int:
        """Return how many findings have a status."""
        return sum(finding.status is status for finding in self.findings)

    @property
    def status(self) -> Status:
        """The worst status among the findings."""
        return next((each for each in (Status.ERROR, Status.WARNING) if self.count(each)), Status.OK)
