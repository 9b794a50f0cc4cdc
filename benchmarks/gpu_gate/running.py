"""Install the wheels beside the machine's own packages, run every part within the time, report."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

from cvplugins.errors import UserError

from .parts import BENCHMARKS, NCCL_SECONDS, TESTS_SECONDS, Benchmark, gpu_test_files
from .report import FAILED, LEFT_OUT, PASSED, Deadline, Outcome, exit_code, measured_lines, read_junit, table
from .wheels import OWN, distribution, normalised

__all__ = ["check_same_source", "run", "to_install"]

# What has to be importable, by the distribution that brings it.
MODULES = {
    "cvplugins": ("cvplugins.losses", "cvplugins.metrics", "cvplugins.norm", "cvplugins.monitors"),
    "onedl-mmengine": ("mmengine.runner",),
    "onedl-mmcv": ("mmcv.ops",),
    "cvplugins-mmcv-ops": ("mmcv._ext",),
    "onedl-mmdetection": ("mmdet.models", "mmdet.datasets"),
    "onedl-mmsegmentation": ("mmseg.models", "mmseg.datasets"),
}
MACHINE = """
import importlib.metadata, json, torch
packages = {name: importlib.metadata.version(name) for name in ("torchvision", "triton", "numpy", "pytest")}
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
nccl = ".".join(map(str, torch.cuda.nccl.version())) if gpus else None
found = {"torch": torch.__version__, "cuda": torch.version.cuda, "gpus": gpus, "nccl": nccl}
print(json.dumps(found | {"packages": packages}))
"""


class Finished(NamedTuple):
    """How a process ended: exit code, None if it ran out of time; what it printed; seconds."""

    code: int | None
    output: str
    seconds: float


@dataclasses.dataclass
class Gate:
    """A run: its checkout, its time, the environment of its processes, and what was found so far."""

    root: Path
    out: Path
    deadline: Deadline
    environment: dict[str, str]
    machine: dict[str, Any] = dataclasses.field(default_factory=dict)
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)
    gpu_tests: int = 0

    @property
    def gpus(self) -> int:
        """Return the number of GPUs."""
        return len(self.machine.get("gpus", ()))

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome, say it, and write the report so far: a run that is killed leaves it."""
        self.outcomes.append(outcome)
        print(f"{outcome.part}: {outcome.state}: {outcome.result} ({outcome.seconds:.1f} s)", flush=True)
        found = {
            "machine": self.machine,
            "gpu_tests": self.gpu_tests,
            "outcomes": [dataclasses.asdict(each) for each in self.outcomes],
        }
        (self.out / "report.json").write_text(json.dumps(found, indent=1))

    def call(self, command: Sequence[str], seconds: float) -> Finished:
        """Run a command for at most ``seconds``, its output into log.txt; end it with all that it has started."""
        log = self.out / "log.txt"
        begin, start = log.stat().st_size if log.exists() else 0, time.monotonic()
        with log.open("ab") as file:
            process = subprocess.Popen(
                command, cwd=self.root, env=self.environment, stdout=file, stderr=file, start_new_session=True
            )
            try:
                code: int | None = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        with log.open("rb") as file:
            file.seek(begin)
            return Finished(code, file.read().decode(errors="replace"), time.monotonic() - start)


def run(root: Path, options: argparse.Namespace) -> int:
    """Install, test, measure; print the table and return the exit code."""
    deadline = Deadline(options.seconds)
    wheels = sorted(options.wheels.glob("*.whl"))
    if not wheels:
        raise UserError(f"--wheels {options.wheels} holds no wheels; fill it with the command `collect`")
    for wheel in wheels:
        if distribution(wheel) == "cvplugins":
            check_same_source(wheel, root)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "log.txt").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as site:
        gate = Gate(root, options.out.resolve(), deadline, _environment(site, options))
        if _install(gate, wheels, site) and _ask_machine(gate):
            _import(gate, wheels)
            _test(gate)
            _test_nccl(gate)
            for benchmark in BENCHMARKS:
                gate.add(_measure(gate, benchmark))
    lines = table(gate.outcomes)
    (gate.out / "table.txt").write_text(lines + "\n")
    print(f"\n{lines}")
    return exit_code(gate.outcomes, gate.gpu_tests)


def check_same_source(wheel: Path, root: Path) -> None:
    """Compare the modules in a wheel with those of the checkout.

    Raises:
        UserError: The wheel was built from another state.
    """
    there = {file.relative_to(root).as_posix(): file for file in sorted(root.glob("cvplugins/**/*.py"))}
    with zipfile.ZipFile(wheel) as archive:
        built = {name: archive.read(name) for name in archive.namelist() if name in there}
    differ = [name for name, file in there.items() if built.get(name) != file.read_bytes()]
    if differ:
        raise UserError(f"{wheel.name} is not of this checkout: {differ[0]} differs; run `collect` again")


def to_install(wheels: Sequence[Path], installed: Set[str]) -> list[Path]:
    """Return the wheels that the machine lacks; the projects' own are always installed."""
    always = OWN | {"onedl-mmcv"}  # its folder takes in _ext.py
    return [wheel for wheel in wheels if distribution(wheel) in always or distribution(wheel) not in installed]


def _environment(site: str, options: argparse.Namespace) -> dict[str, str]:
    folders = [site]
    environment = dict(os.environ)
    for name in ("detectron2", "mask2former"):
        checkout = getattr(options, name)
        if checkout is None:
            continue
        if not checkout.is_dir():
            raise UserError(f"--{name} {checkout} is no folder; name a checkout")
        folders.append(str(checkout.resolve()))
    if options.mask2former is not None:
        environment["MASK2FORMER_ROOT"] = str(options.mask2former.resolve())
    environment["PYTHONPATH"] = os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment["PYTHONUNBUFFERED"] = "1"  # what was printed before the end of the time counts
    return environment


def _install(gate: Gate, wheels: list[Path], site: str) -> bool:
    names = (each.metadata["Name"] for each in importlib.metadata.distributions())
    chosen = to_install(wheels, {normalised(name) for name in names if name})
    # In one call: mmcv and the module _ext.py share a folder, which pip moves as a whole.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--target"]
    ended = gate.call([*pip, site, *(str(wheel.resolve()) for wheel in chosen)], gate.deadline.left())
    there = len(wheels) - len(chosen)
    result = f"{len(chosen)} wheels" + (f", {there} packages were there" if there else "")
    gate.add(Outcome("install", "pip without an index", *_judged(ended, result), ended.seconds))
    return ended.code == 0


def _ask_machine(gate: Gate) -> bool:
    ended = gate.call([sys.executable, "-c", MACHINE], gate.deadline.left())
    if ended.code == 0:
        gate.machine = {"python": sys.version.split()[0], **json.loads(ended.output.splitlines()[-1])}
    found = gate.machine
    gpus = ", ".join(found.get("gpus", ())) or "no GPU"
    state, result = _judged(ended, f"{gpus}; torch {found.get('torch')}, CUDA {found.get('cuda')}")
    gate.add(Outcome("machine", "torch and its GPUs", state, result, ended.seconds))
    return ended.code == 0


def _import(gate: Gate, wheels: list[Path]) -> None:
    names = [name for wheel in wheels for name in MODULES.get(distribution(wheel), ())]
    code = "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)"
    ended = gate.call([sys.executable, "-c", code, *names], gate.deadline.left())
    gate.add(Outcome("import", "what travels", *_judged(ended, f"{len(names)} modules"), ended.seconds))


def _test(gate: Gate) -> None:
    gate.add(_pytest(gate, "tests", "pytest -m gpu", "gpu and not distributed", TESTS_SECONDS))


def _test_nccl(gate: Gate) -> None:
    if gate.gpus < 2:
        reason = "1 GPU: NCCL refuses two ranks on one device" if gate.gpus else "no GPU"
        gate.add(Outcome("NCCL", "two ranks, a GPU each", LEFT_OUT, reason))
    else:
        gate.add(_pytest(gate, "NCCL", "two ranks, a GPU each", "gpu and distributed", NCCL_SECONDS))


def _pytest(gate: Gate, part: str, measured: str, marks: str, most: float) -> Outcome:
    seconds = gate.deadline.grant(10, most)
    if seconds is None:
        return _no_time(gate, part, measured)
    files = [str(file.relative_to(gate.root)) for file in gpu_test_files(gate.root)]
    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder, "junit.xml")
        pytest = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-m", marks]
        ended = gate.call([*pytest, f"--junitxml={junit}", *files], seconds)
        if not junit.exists():
            return Outcome(part, measured, *_judged(ended, "pytest wrote no results", failed=True), ended.seconds)
        counts = read_junit(junit.read_text())
    if counts.failed or ended.code != 0:
        return Outcome(part, measured, *_judged(ended, str(counts), failed=True), ended.seconds)
    if not gate.gpus:
        return Outcome(part, measured, LEFT_OUT, f"no GPU: {counts}", ended.seconds)
    gate.gpu_tests += counts.passed
    return Outcome(part, measured, PASSED if counts.passed else FAILED, str(counts), ended.seconds)


def _measure(gate: Gate, benchmark: Benchmark) -> Outcome:
    folder = gate.root / "benchmarks"
    part, measured = benchmark.name, benchmark.measured
    if not benchmark.exists(folder):
        return Outcome(part, measured, LEFT_OUT, f"benchmarks/{benchmark.command[0]} is not in this checkout")
    if not gate.gpus:
        return Outcome(part, measured, LEFT_OUT, "no GPU")
    seconds = gate.deadline.grant(benchmark.least, benchmark.most)
    if seconds is None:
        return _no_time(gate, part, measured)
    if benchmark.modules:
        tried = gate.call([sys.executable, "-c", f"import {', '.join(benchmark.modules)}"], seconds)
        if tried.code:
            return Outcome(part, measured, LEFT_OUT, _last_line(tried.output), tried.seconds)
        seconds = max(seconds - tried.seconds, 1)
    ended = gate.call(benchmark.line(folder), seconds)
    lines = measured_lines(ended.output)
    return Outcome(part, measured, *_judged(ended, f"{len(lines)} lines"), ended.seconds, lines)


def _judged(ended: Finished, result: str, failed: bool = False) -> tuple[str, str]:
    """Return state and result of a process that ended."""
    if ended.code is None:
        return FAILED, f"ended after {ended.seconds:.0f} s, its time; {result}"
    if ended.code:
        return FAILED, f"exit code {ended.code}: {_last_line(ended.output)}; {result}"
    return (FAILED if failed else PASSED), result


def _no_time(gate: Gate, part: str, measured: str) -> Outcome:
    return Outcome(part, measured, LEFT_OUT, f"only {gate.deadline.left():.0f} s were left of the time for all")


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
