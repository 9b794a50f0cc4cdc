"""Processes that begin with torch and the frameworks imported, which costs 20 s where each does it for itself.

They fork from Python's fork server, one for each process of pytest: single-threaded, without anything of a test in it.
"""

from __future__ import annotations

import functools
import multiprocessing
import multiprocessing.forkserver
import os
import re
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

__all__ = ["run_python", "run_until", "start_server", "use_environment"]


@functools.cache
def start_server() -> Any:
    """Start the fork server, wait until it is ready, and return multiprocessing's context for its processes.

    They get its environment: that of the test has to be given to them.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preloaded"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        patch.setenv("OMP_NUM_THREADS", "1")
        multiprocessing.forkserver.ensure_running()
    first = context.Process(target=os.getpid)
    first.start()
    first.join()
    return context


def run_python(
    command: Sequence[str], cwd: Path, environments: Sequence[Mapping[str, str]], timeout: float
) -> list[subprocess.CompletedProcess[str]]:
    """Run ``python SCRIPT ARGUMENTS``, or ``python -c CODE``, in a process for each environment, all at once.

    Raises:
        subprocess.TimeoutExpired: They were not done after ``timeout`` seconds; they are killed.
    """
    context = start_server()
    with tempfile.TemporaryDirectory() as folder:
        outputs = [(Path(folder, f"{index}.out"), Path(folder, f"{index}.err")) for index in range(len(environments))]
        processes = [
            context.Process(target=_run_python, args=(list(command), cwd, dict(environment), output))
            for environment, output in zip(environments, outputs, strict=True)
        ]
        deadline = time.monotonic() + timeout
        for process in processes:
            process.start()
        for process in processes:
            process.join(max(0, deadline - time.monotonic()))
        late = [process for process in processes if process.exitcode is None]
        for process in late:
            _kill(process)
        printed = [[_text(file) for file in output] for output in outputs]
        if late:
            raise subprocess.TimeoutExpired(command, timeout, *map("".join, zip(*printed, strict=True)))
        return [
            subprocess.CompletedProcess(command, process.exitcode, *texts)
            for process, texts in zip(processes, printed, strict=True)
        ]


def run_until(
    pattern: str, command: Sequence[str], cwd: Path, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run ``python SCRIPT ARGUMENTS`` until it has printed what ``pattern`` finds; then kill all of it."""
    context = start_server()
    with tempfile.TemporaryDirectory() as folder:
        outputs = (Path(folder, "out"), Path(folder, "err"))
        process = context.Process(target=_run_python, args=(list(command), cwd, dict(environment), outputs))
        process.start()
        deadline = time.monotonic() + timeout
        while process.exitcode is None and not re.search(pattern, _text(outputs[0])) and time.monotonic() < deadline:
            process.join(0.02)
        if process.exitcode is None:
            _kill(process)
        return subprocess.CompletedProcess(command, process.exitcode, *map(_text, outputs))


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def _kill(process: multiprocessing.Process) -> None:
    """End a process and those that it has started, such as the workers of its data loaders."""
    os.killpg(process.pid, signal.SIGKILL)
    process.join()


def _run_python(command: list[str], cwd: Path, environment: Mapping[str, str], outputs: tuple[Path, Path]) -> None:
    os.setsid()  # so that it can be killed with its children
    use_environment(environment)
    os.chdir(cwd)
    for number, output in enumerate(outputs, start=1):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT), number)
    if command[0] == "-c":
        sys.argv = command[:1] + command[2:]
        sys.path.insert(0, "")
        exec(compile(command[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = command
        sys.path.insert(0, str(Path(command[0]).absolute().parent))
        runpy.run_path(command[0], run_name="__main__")


def use_environment(environment: Mapping[str, str]) -> None:
    """Replace this process's environment."""
    os.environ.clear()
    os.environ.update(environment)
