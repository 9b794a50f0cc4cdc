"""What a run found: outcomes, the time that is left, one table and the exit code."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

__all__ = ["Deadline", "Outcome", "TestCounts", "exit_code", "measured_lines", "read_junit", "table"]

PASSED, FAILED, LEFT_OUT = "passed", "FAILED", "left out"
WIDTH = 100  # of a result in the table


@dataclass(frozen=True)
class Outcome:
    """What became of one part: ``state`` is passed, FAILED or left out; ``lines`` are measurements and their values."""

    part: str
    measured: str
    state: str
    result: str
    seconds: float = 0.0
    lines: tuple[tuple[str, str], ...] = ()


class Deadline:
    """The time that is left for all parts together.

    Args:
        seconds: From now on.
        clock: Returns the time in seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def left(self) -> float:
        """Return the seconds that are left, at least 0."""
        return max(self._end - self._clock(), 0.0)

    def grant(self, least: float, most: float) -> float | None:
        """Return the seconds that a part may take, at most ``most``; None if fewer than ``least`` are left."""
        return min(self.left(), most) if self.left() >= least else None


@dataclass(frozen=True)
class TestCounts:
    """What pytest's JUnit file says: passed tests, names of failed ones, and reasons of skipped ones."""

    __test__ = False

    passed: int = 0
    failed: tuple[str, ...] = ()
    skipped: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        parts = [f"{self.passed} passed"]
        if self.failed:
            parts.append(f"{len(self.failed)} failed ({', '.join(self.failed)})")
        if self.skipped:
            reasons = ", ".join(sorted(set(self.skipped)))
            parts.append(f"{len(self.skipped)} skipped ({reasons})")
        return ", ".join(parts)


def read_junit(xml: str) -> TestCounts:
    """Read pytest's JUnit file."""
    passed, failed, skipped = 0, [], []
    for case in ElementTree.fromstring(xml).iter("testcase"):
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(case.get("name", "?"))
        elif skip is not None:
            skipped.append(skip.get("message", "no reason"))
        else:
            passed += 1
    return TestCounts(passed, tuple(failed), tuple(skipped))


def measured_lines(output: str) -> tuple[tuple[str, str], ...]:
    r"""Return what a benchmark measured and its values: it prints both in a line, with two blanks between them.

    >>> measured_lines("4 threads\n\nfocal 100k  ours   14.03  1.00\n             ms  times")
    (('focal 100k', 'ours 14.03 1.00'), ('', 'ms times'))
    """
    found = []
    for line in output.splitlines():
        heading = re.fullmatch(r"\s{8,}(\S.*)", line)
        values = re.fullmatch(r"\s{0,7}(\S.*?)\s{2,}(.*\d.*)", line)
        if heading:
            found.append(("", " ".join(heading[1].split())))
        elif values:
            found.append((values[1], " ".join(values[2].split())))
    return tuple(found)


def table(outcomes: Iterable[Outcome]) -> str:
    """Return the table: part, what was measured, result, seconds; measurements stand below their part."""
    rows: list[tuple[str, str, str, str]] = [("part", "measured", "result", "seconds")]
    for each in outcomes:
        rows.append((each.part, each.measured, f"{each.state}: {each.result}", f"{each.seconds:.1f}"))
        rows += [("", measured, value, "") for measured, value in each.lines]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cell.ljust(min(width, WIDTH)) for cell, width in zip(row, widths, strict=False)]
    return "  ".join([*cells, row[3].rjust(7)]).rstrip()


def exit_code(outcomes: Iterable[Outcome], gpu_tests: int) -> int:
    """Return 0 if all that ran passed and at least one test ran on a GPU, else 1."""
    return int(gpu_tests == 0 or any(each.state == FAILED for each in outcomes))
