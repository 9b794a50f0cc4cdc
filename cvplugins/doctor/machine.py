"""Facts about the machine: cores, memory, disk, limits, compilers and GPUs, as plain numbers and names."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["GIB", "Compiler", "Gpu", "Machine", "read_machine"]

GIB = 2**30
UNLIMITED = 2**60  # cgroup v1 writes "no limit" as a number near 2^63
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Gpu:
    """A GPU that the driver shows, and its memory in bytes."""

    name: str
    memory: int


@dataclass(frozen=True)
class Compiler:
    """A compiler's path and version; both are empty if there is none."""

    path: str = ""
    version: str = ""


@dataclass(frozen=True)
class Machine:
    """What the doctor knows of a machine; None where the system does not say it.

    Attributes:
        cores: Cores that this process may use, by its affinity.
        cores_in_all: Cores of the machine.
        core_limit: Cores' worth of time that the container may use, None without a limit.
        memory: Bytes of the machine, or of the container's limit.
        memory_free: Bytes of it that are free.
        disk_free: Bytes that are free where the work directory would be.
        shared_memory: Bytes of ``/dev/shm``.
        shared_memory_free: Bytes of it that are free.
        open_files: How many files a process may open.
        open_files_hard: To how many it may raise that.
        compiler: The C++ compiler.
        c_compiler: The C compiler.
        cuda_compiler: ``nvcc``.
        driver: Version of NVIDIA's driver, empty if it is not known.
        driver_works: Whether ``nvidia-smi`` showed a GPU; None if there is no such command.
        gpus: GPUs that the driver shows.
    """

    cores: int = 1
    cores_in_all: int = 1
    core_limit: float | None = None
    memory: int | None = None
    memory_free: int | None = None
    disk_free: int | None = None
    shared_memory: int | None = None
    shared_memory_free: int | None = None
    open_files: int | None = None
    open_files_hard: int | None = None
    compiler: Compiler = Compiler()
    c_compiler: Compiler = Compiler()
    cuda_compiler: Compiler = Compiler()
    driver: str = ""
    driver_works: bool | None = None
    gpus: tuple[Gpu, ...] = ()


def read_machine(environment: Mapping[str, str] = os.environ) -> Machine:
    """Return the facts about this machine."""
    memory, memory_free = _memory()
    soft, hard = _open_files()
    driver_works, driver, gpus = _gpus()
    disk, shared = _usage("."), _usage("/dev/shm")
    cores_in_all = os.cpu_count() or 1
    return Machine(
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores_in_all,
        cores_in_all=cores_in_all,
        core_limit=_core_limit(_cgroup_folders("cpu")),
        memory=memory,
        memory_free=memory_free,
        disk_free=disk.free if disk else None,
        shared_memory=shared.total if shared else None,
        shared_memory_free=shared.free if shared else None,
        open_files=soft,
        open_files_hard=hard,
        compiler=_compiler(environment.get("CXX"), "c++", "g++", "clang++"),
        c_compiler=_compiler(environment.get("CC"), "gcc", "clang", "cc"),
        cuda_compiler=_compiler(None, *_nvcc_places(environment)),
        driver=driver,
        driver_works=driver_works,
        gpus=gpus,
    )


def _usage(folder: str) -> shutil._ntuple_diskusage | None:
    try:
        return shutil.disk_usage(folder)
    except OSError:
        return None


def _open_files() -> tuple[int | None, int | None]:
    try:
        import resource
    except ImportError:  # Windows
        return None, None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    return None if soft == unlimited else soft, None if hard == unlimited else hard


def _cgroup_folders(controller: str, root: Path = CGROUP, own: Path = Path("/proc/self/cgroup")) -> list[Path]:
    """Return the control groups of this process, from its own up to the root: the tightest limit holds."""
    folders = [root, root / controller]  # version 2, version 1
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            base = root / controller if controllers else root
            inner = base / path.lstrip("/")
            folders += [inner, *(each for each in inner.parents if each.is_relative_to(base))]
    return [*dict.fromkeys(folders)]


def _core_limit(folders: list[Path]) -> float | None:
    limits = []
    for folder in folders:
        words = _read(folder / "cpu.max").split() or [
            _read(folder / "cpu.cfs_quota_us").strip(),
            _read(folder / "cpu.cfs_period_us").strip(),
        ]
        if len(words) == 2 and all(re.fullmatch(r"\d+", word) for word in words) and int(words[1]) > 0:
            limits.append(int(words[0]) / int(words[1]))
    return min(limits, default=None)


def _memory() -> tuple[int | None, int | None]:
    lines = re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", _read(Path("/proc/meminfo")), flags=re.MULTILINE)
    numbers = {name: int(value) * 1024 for name, value in lines}
    total, free = numbers.get("MemTotal"), numbers.get("MemAvailable")
    for limit, used in _memory_limits(_cgroup_folders("memory")):
        if total is None or limit < total:
            total = limit
        free = limit - used if free is None else min(free, limit - used)
    return total, free


def _memory_limits(folders: list[Path]) -> list[tuple[int, int]]:
    """Return limit and use of each control group that has a limit, in bytes."""
    found = []
    for folder in folders:
        for limit_name, use_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, used = _read(folder / limit_name).strip(), _read(folder / use_name).strip()
            if limit.isdigit() and used.isdigit() and int(limit) < UNLIMITED:
                found.append((int(limit), int(used)))
    return found


def _nvcc_places(environment: Mapping[str, str]) -> list[str]:
    homes = [environment[key] for key in ("CUDA_HOME", "CUDA_PATH") if environment.get(key)]
    return [*(os.path.join(home, "bin", "nvcc") for home in homes), "nvcc", "/usr/local/cuda/bin/nvcc"]


def _compiler(named: str | None, *usual: str) -> Compiler:
    """Return the compiler that the environment names, or the first of the usual ones that is there."""
    for name in named.split()[:1] if named else usual:
        path = shutil.which(name)
        if path:
            return Compiler(path, _version(path))
    return Compiler()


def _version(path: str) -> str:
    """Return what follows "release", as nvcc says it, else the first number with a point; empty if it does not run."""
    output = _output([path, "--version"]) or ""
    release = re.search(r"release (\d[\d.]*)", output) or re.search(r"(\d+\.\d[\d.]*)", output)
    return release.group(1).rstrip(".") if release else ""


def _gpus(run: Callable[[list[str]], str | None] | None = None) -> tuple[bool | None, str, tuple[Gpu, ...]]:
    """Return whether ``nvidia-smi`` answers, the driver's version, and the GPUs."""
    path = shutil.which("nvidia-smi")
    if path is None and run is None:
        return None, "", ()
    query = [path or "nvidia-smi", "--query-gpu=driver_version,name,memory.total", "--format=csv,noheader,nounits"]
    output = (run or _output)(query)
    if output is None:
        return False, "", ()
    rows = [[cell.strip() for cell in line.split(",")] for line in output.splitlines()]
    gpus = [(row[0], Gpu(row[1], _mebibytes(row[2]))) for row in rows if len(row) == 3]
    return bool(gpus), gpus[0][0] if gpus else "", tuple(gpu for _, gpu in gpus)


def _mebibytes(text: str) -> int:
    return int(text) * 2**20 if text.isdigit() else 0


def _output(command: list[str]) -> str | None:
    """Return what a command prints, None if it fails or takes longer than it should."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True, errors="replace").stdout
    return None


def _read(path: Path) -> str:
    """Return a file of the system, empty if this system has none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
