"""Import packages in another process, so that what raises, crashes or hangs there becomes a fact here."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Outcome", "Probe", "try_imports"]

CHILD = Path(__file__).with_name("child.py")
PATIENCE = 10  # of the limits together: when the process is ended whose own watchdog does not
LIMIT = 120.0  # seconds; loading one module of torch takes 10 on a very busy machine


@dataclass(frozen=True)
class Probe:
    """What to try.

    Attributes:
        name: How the outcome is asked for.
        modules: What to import, in this order.
        question: ``"module:function"``, called after the imports; it returns a dictionary that JSON can hold.
        arguments: What the function is called with.
        limit: Seconds without a module being loaded, after which the probe counts as hanging.
    """

    name: str
    modules: tuple[str, ...] = ()
    question: str = ""
    arguments: tuple[str, ...] = ()
    limit: float = LIMIT


@dataclass(frozen=True)
class Outcome:
    """How a probe went.

    Attributes:
        state: ``"ok"``, ``"missing"`` (not installed), ``"raised"``, ``"died"`` or ``"hung"``.
        error: What the error says, or how the process died.
        type: The error's type.
        module: What was being imported then; empty if the imports were over.
        missing: A module that is not installed and that the package asks for.
        needs: A module that failed in an earlier probe, and whose failure this one only repeats.
        answers: What the question returned.
        seconds: How long it took.
    """

    state: str
    error: str = ""
    type: str = ""
    module: str = ""
    missing: str = ""
    needs: str = ""
    answers: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def try_imports(probes: Sequence[Probe], path: Iterable[str] | None = None) -> dict[str, Outcome]:
    """Return the outcome of each probe by its name.

    One process tries them all. One that kills the process, or that hangs in it, is not tried again, and a new process
    takes the rest.

    Args:
        probes: What to try; one that others need comes before them.
        path: Where modules are found; ``sys.path`` if None.
    """
    path = list(sys.path if path is None else path)
    outcomes: dict[str, Outcome] = {}
    broken: list[str] = []
    rest = list(probes)
    while rest:
        outcomes |= _try_in_one_process(rest, path, broken)
        broken = [each.module for each in outcomes.values() if each.module and each.state != "missing"]
        rest = [probe for probe in rest if probe.name not in outcomes]
    return outcomes


def _try_in_one_process(probes: Sequence[Probe], path: list[str], broken: list[str]) -> dict[str, Outcome]:
    """Return the outcomes up to the first that ended the process."""
    with tempfile.TemporaryDirectory() as folder:
        out, errors = Path(folder, "outcomes.jsonl"), Path(folder, "errors.txt")
        out.touch()
        request = {"path": path, "broken": broken, "out": str(out), "probes": [vars(probe) for probe in probes]}
        with errors.open("wb") as stderr:
            code = _run_child(json.dumps(request), stderr, PATIENCE * sum(probe.limit for probe in probes))
        lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        outcomes = {line.pop("name"): Outcome(**line) for line in lines}
        if not outcomes:  # Python itself did not come up
            outcomes[probes[0].name] = Outcome("died", module=next(iter(probes[0].modules), ""))
        name, last = list(outcomes.items())[-1]
        if last.state == "died":
            log = errors.read_text(encoding="utf-8", errors="replace")
            outcomes[name] = _death(code, log, next(probe for probe in probes if probe.name == name), last.module)
    return outcomes


def _run_child(request: str, stderr: Any, limit: float) -> int | None:
    """Return the exit code of the process, negative for a signal, None if even its watchdog did not end it."""
    try:
        return subprocess.run(
            [sys.executable, str(CHILD)],
            input=request.encode(),
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            timeout=limit,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        return None


def _death(code: int | None, log: str, probe: Probe, module: str) -> Outcome:
    place = _innermost_file(log)
    if code is None or "Timeout (" in log:  # the words of Python's faulthandler
        return Outcome("hung", f"no progress for {probe.limit:.0f} s{place}", module=module, seconds=probe.limit)
    how = f"by signal {_signal_name(-code)}" if code < 0 else f"with exit code {code}"
    return Outcome("died", f"ended Python {how}{place}", module=module)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _innermost_file(log: str) -> str:
    """Return where Python was, in the words of a sentence, by the trace that faulthandler wrote."""
    threads = re.split(r"^(?=(?:Current thread|Thread) 0x)", log, flags=re.MULTILINE)
    # A crash names its thread; a timeout shows all, the main one last.
    thread = next((each for each in threads if each.startswith("Current thread")), threads[-1])
    found = re.search(r'^  File "([^"<][^"]*)", line (\d+)', thread, flags=re.MULTILINE)
    return f", in {found[1]}, line {found[2]}" if found else ""
