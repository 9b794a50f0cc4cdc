"""Which tests may be skipped, and the count of what ran and what did not: options and hooks of pytest.

With ``--strict-skips`` a run fails if a test is skipped for any other reason than those of :data:`ALLOWED`, such as a
package that is missing, or for one of them where the thing is there.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytest

__all__ = ["ALLOWED", "Allowed", "count_tests", "is_installed", "pytest_addoption"]

PARTS = ("openmmlab", "detectron2", "mask2former", "gpu")  # markers whose tests are counted


def is_installed(package: str) -> bool:
    """Return whether there is such a package; a folder of that name in tests would count as one without an origin."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def has_two_gpus() -> bool:
    import torch

    return torch.cuda.device_count() >= 2


def has_mask2former() -> bool:
    return is_installed("detectron2") and is_installed("timm") and "MASK2FORMER_ROOT" in os.environ


@dataclass(frozen=True)
class Allowed:
    """A reason for which tests may be skipped while something is lacking.

    Attributes:
        pattern: Regular expression that the reason begins with.
        is_there: Whether what is lacking is there after all; then nothing may be skipped for this reason.
    """

    pattern: str
    is_there: Callable[[], bool] = bool  # False


ALLOWED = {
    "no GPU": Allowed("no CUDA device", has_gpu),
    "one GPU or none": Allowed("fewer than two GPUs", has_two_gpus),
    "no Detectron2": Allowed(
        "detectron2 is not installed|could not import 'detectron2", lambda: is_installed("detectron2")
    ),
    "no Mask2Former": Allowed("no original Mask2Former", has_mask2former),
    "no real data": Allowed("no real (VOC photographs|ADE20K labels)"),
    "torch too old": Allowed(r"needs torch \d"),
    "not Linux": Allowed("needs Linux", lambda: sys.platform == "linux"),
}


def allowed_name(reason: str) -> str | None:
    """Return the name of the allowed reason that this is, or None."""
    for name, allowed in ALLOWED.items():
        if re.match(allowed.pattern, reason) and not allowed.is_there():
            return name
    return None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--strict-skips", action="store_true", help="fail if a test is skipped for a reason that tests/skips.py lacks"
    )


def count_tests(config: pytest.Config) -> None:
    """Count what this run tests and skips, and print it at its end; for ``pytest_configure``."""
    if not hasattr(config, "workerinput"):  # a worker of pytest-xdist only hands its reports on
        config.pluginmanager.register(_Skips(config.getoption("strict_skips")), "cvplugins-skips")


class _Skips:
    """Collects the reports of a run, prints what ran, and fails the run for what may not be skipped."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.passed: Counter[str] = Counter()
        self.allowed: Counter[str] = Counter()
        self.refused: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed.update(part for part in PARTS if part in report.keywords)
        self._count(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._count(report)

    def _count(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if (name := allowed_name(reason)) is not None:
            self.allowed[name] += 1
        else:
            self.refused.setdefault(reason, []).append(report.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.strict and self.refused and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not (self.strict or self.refused):
            return
        terminalreporter.section("what was tested")
        parts = [f"{part}: {self.passed[part] or 'NOT TESTED'}" for part in PARTS]
        terminalreporter.line(f"tests passed of {', '.join(parts)}")
        terminalreporter.line(f"skipped, as allowed: {_counts(self.allowed.items())}")
        for reason, tests in self.refused.items():
            more = f" and {len(tests) - 1} more" if len(tests) > 1 else ""
            terminalreporter.line(f"skipped, NOT ALLOWED: {tests[0]}{more}: {reason}", red=True)
        if self.refused and self.strict:
            terminalreporter.line("error: --strict-skips: install what is missing, or see ALLOWED in tests/skips.py")


def _counts(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts) or "nothing"
