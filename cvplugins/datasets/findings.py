"""Findings of a check that tells everything at once: what is wrong, where, and by which value."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

from cvplugins.errors import DataError, UserError

__all__ = ["Finding", "Findings", "Step", "stop_at_first"]

# Messages of checks begin with the file, and the line where there is one.
PLACE = re.compile(r"(?P<file>[^:\n]*[/.][^:\n]*?)(?:, line (?P<line>\d+))?: (?P<rest>.+)", re.DOTALL)
QUOTED = r"(?P<value>\[.*?\]|\{.*?\}|'[^']*'|\"[^\"]*\"|[^\s,;]+)"
DETAILS = tuple(
    re.compile(pattern)
    for pattern in (
        r"is (?P<value>\d+ x \d+) pixels",
        rf"(?P<key><\w+>|[a-z]\w*\[\d+\](?:\.\w+)?)(?: \(image [^)]*\))? is {QUOTED}",
        r"(?P<key>[a-z]\w*\[\d+\](?:\.\w+)?)",
        r"(?P<key><[\w/]+>)",
        r"(?P<key>label) (?P<value>-?\d+)",
        r"(?P<key>object) (?P<value>'[^']*')",
        r"(?P<key>box) (?P<value>\([^)]*\))",
        r"names (?P<key>image) (?P<value>\S+)",
    )
)

Step = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes:
        kind: What it is about, such as ``"images"``.
        level: ``"error"``: a loader cannot read it, or a training would go wrong; or ``"warning"``.
        message: In one sentence; it begins with the file.
        file: The file, if it is about one.
        line: Its line, if that is known.
        key: The element, entry or kind of value.
        value: What is there.
    """

    kind: str
    level: str
    message: str
    file: str = ""
    line: int | None = None
    key: str = ""
    value: str = ""

    @classmethod
    def of(cls, kind: str, level: str, message: str) -> Finding:
        """Make one of a check's message, which names file, key and value.

        >>> found = Finding.of("annotations", "error", "a/1.xml, line 9: <xmin> is 'ten', not a number")
        >>> found.file, found.line, found.key, found.value
        ('a/1.xml', 9, '<xmin>', 'ten')
        """
        place = PLACE.match(message)
        rest = place["rest"] if place else message
        details = next((found for found in (each.search(rest) for each in DETAILS) if found), None)
        named = details.groupdict() if details else {}
        return cls(
            kind,
            level,
            message,
            place["file"] if place else "",
            int(place["line"]) if place and place["line"] else None,
            named.get("key") or "",
            (named.get("value") or "").strip("'\""),
        )


@dataclass
class Findings:
    """All that a check found, in the order in which it came."""

    found: list[Finding] = field(default_factory=list)

    def error(self, kind: str, *messages: str) -> None:
        """Add errors."""
        self._add(kind, "error", messages)

    def warn(self, kind: str, *messages: str) -> None:
        """Add warnings."""
        self._add(kind, "warning", messages)

    @contextmanager
    def step(self, kind: str) -> Iterator[None]:
        """Take the error that ends a step of a check, and what the step warns of."""
        package = logging.getLogger("cvplugins")
        listener = _Listener(lambda message: self.warn(kind, message))
        package.addHandler(listener)
        try:
            yield
        except DataError as error:
            self.error(kind, *error.problems)
        except UserError as error:
            self.error(kind, str(error))
        finally:
            package.removeHandler(listener)

    @property
    def errors(self) -> int:
        """How many are errors."""
        return sum(each.level == "error" for each in self.found)

    @property
    def warnings(self) -> int:
        """How many are warnings."""
        return len(self.found) - self.errors

    def groups(self) -> dict[tuple[str, str], list[Finding]]:
        """Return the findings by level and kind, errors first."""
        groups: dict[tuple[str, str], list[Finding]] = {}
        for each in sorted(self.found, key=lambda each: each.level):
            groups.setdefault((each.level, each.kind), []).append(each)
        return groups

    def as_json(self) -> dict[str, Any]:
        """Return numbers and findings as JSON has them."""
        return {
            "errors": self.errors,
            "warnings": self.warnings,
            "findings": [asdict(each) for found in self.groups().values() for each in found],
        }

    def _add(self, kind: str, level: str, messages: Iterable[str]) -> None:
        known = {each.message for each in self.found} if len(self.found) < 1000 else set()
        self.found += [Finding.of(kind, level, each) for each in dict.fromkeys(map(str, messages)) if each not in known]


class _Listener(logging.Handler):
    """Hands on what is warned of."""

    def __init__(self, take: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self.take = take

    def emit(self, record: logging.LogRecord) -> None:
        self.take(record.getMessage())


def stop_at_first(kind: str) -> AbstractContextManager[None]:
    """Let the first error of any step end the check, as before training."""
    del kind
    return nullcontext()
