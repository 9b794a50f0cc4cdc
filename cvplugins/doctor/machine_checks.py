"""Judge the machine: is it large enough, and do its limits let a training run?"""

from __future__ import annotations

import math
from collections.abc import Mapping

from .findings import Finding, error, ok, warning
from .machine import GIB, Compiler, Machine

__all__ = ["check_machine"]

DISK_ERROR, DISK_WARNING = 1 * GIB, 5 * GIB  # a detector's checkpoint has 0.3 GiB, and several are kept
SHARED_MEMORY = 1 * GIB  # Docker gives 64 MiB; a batch of images at 1000 x 600 has 60
OPEN_FILES = 4096  # loader workers pass each tensor as an open file; 1024 are soon used up
MEMORY = 4 * GIB


def check_machine(machine: Machine, environment: Mapping[str, str]) -> list[Finding]:
    """Return what is to be said of a machine and of the environment's settings for it."""
    findings = [
        _cores(machine, environment),
        _memory(machine),
        _disk(machine),
        _shared_memory(machine),
        _open_files(machine),
        _compilers(machine),
        _gpus(machine),
    ]
    return [finding for finding in findings if finding is not None]


def gibibytes(number: int) -> str:
    """Return a size for people.

    >>> gibibytes(3 * 2**30), gibibytes(64 * 2**20)
    ('3.0 GiB', '64 MiB')
    """
    return f"{number / GIB:.1f} GiB" if number >= GIB else f"{number / 2**20:.0f} MiB"


def _cores(machine: Machine, environment: Mapping[str, str]) -> Finding:
    value = str(machine.cores)
    if machine.cores < machine.cores_in_all:
        value += f" of the machine's {machine.cores_in_all}"
    threads = environment.get("OMP_NUM_THREADS", "")
    if machine.core_limit is None or machine.core_limit >= machine.cores:
        return ok("cores", value + (f", OMP_NUM_THREADS={threads}" if threads else ""))
    value += f", of which the container may use {machine.core_limit:g}"
    usable = max(1, math.floor(machine.core_limit))
    if threads.isdigit() and int(threads) <= usable:
        return ok("cores", f"{value}, OMP_NUM_THREADS={threads}")
    # torch starts a thread for each core that it sees, and the limit then stops all of them at once.
    return warning("cores", value, f"export OMP_NUM_THREADS={usable}")


def _memory(machine: Machine) -> Finding | None:
    if machine.memory is None or machine.memory_free is None:
        return None
    value = f"{gibibytes(machine.memory_free)} free of {gibibytes(machine.memory)}"
    if machine.memory_free < MEMORY:
        return warning("memory", value, "end other programs, or train with a smaller batch and num_workers=0")
    return ok("memory", value)


def _disk(machine: Machine) -> Finding | None:
    if machine.disk_free is None:
        return None
    value = f"{gibibytes(machine.disk_free)} free in this folder"
    advice = "free some space, or let --work-dir name a folder on a larger disk"
    if machine.disk_free < DISK_ERROR:
        return error("disk", value, advice)
    return warning("disk", value, advice) if machine.disk_free < DISK_WARNING else ok("disk", value)


def _shared_memory(machine: Machine) -> Finding | None:
    if machine.shared_memory is None or machine.shared_memory_free is None:
        return None
    value = f"{gibibytes(machine.shared_memory_free)} free of {gibibytes(machine.shared_memory)}"
    if machine.shared_memory < SHARED_MEMORY:
        return warning("/dev/shm", value, "start the container with --shm-size=8g; until then train with num_workers=0")
    if machine.shared_memory_free < SHARED_MEMORY:
        return warning("/dev/shm", value, "remove what killed programs left there: ls -l /dev/shm")
    return ok("/dev/shm", value)


def _open_files(machine: Machine) -> Finding | None:
    if machine.open_files is None:
        return None
    value = f"at most {machine.open_files}"
    if machine.open_files >= OPEN_FILES:
        return ok("open files", value)
    hard = machine.open_files_hard
    if hard is not None and hard < OPEN_FILES:
        return warning(
            "open files", f"{value}, and {hard} by the hard limit", f"as root: ulimit -n {OPEN_FILES}, or less workers"
        )
    return warning("open files", value, f"ulimit -n {min(hard or 65536, 65536)}")


def _compilers(machine: Machine) -> Finding:
    """Nothing here has to be compiled, so that a missing compiler is no fault."""
    parts = [
        _compiler("C++", machine.compiler),
        _compiler("CUDA", machine.cuda_compiler),
    ]
    return ok("compilers", ", ".join(parts))


def _compiler(language: str, compiler: Compiler) -> str:
    if not compiler.path:
        return f"none for {language}"
    return f"{compiler.path} {compiler.version}" if compiler.version else f"{compiler.path} (does not run)"


def _gpus(machine: Machine) -> Finding:
    if machine.driver_works is None:
        return ok("GPU", "none (no nvidia-smi)")
    if not machine.driver_works:
        return error("GPU", "nvidia-smi shows none", "nvidia-smi says why; in a container: docker run --gpus all")
    names = [f"{gpu.name}, {gibibytes(gpu.memory)}" for gpu in machine.gpus]
    counted = [f"{names.count(name)} x {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)]
    return ok("GPU", f"{'; '.join(counted)}; driver {machine.driver}")
