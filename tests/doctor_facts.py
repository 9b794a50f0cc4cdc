"""Made-up facts: a machine and an environment where everything is fine, for tests to break in one place."""

from __future__ import annotations

from typing import Any

from cvplugins.doctor import Distribution, Facts, Finding, Machine, Outcome
from cvplugins.doctor.machine import GIB, Compiler, Gpu
from cvplugins.doctor.versions import parse_requirement

FINE = Machine(
    cores=8,
    cores_in_all=8,
    memory=32 * GIB,
    memory_free=30 * GIB,
    disk_free=100 * GIB,
    shared_memory=16 * GIB,
    shared_memory_free=16 * GIB,
    open_files=65536,
    open_files_hard=65536,
    compiler=Compiler("/usr/bin/c++", "12.2.0"),
    c_compiler=Compiler("/usr/bin/gcc", "12.2.0"),
)
GPU = Gpu("NVIDIA H200", 140 * GIB)
DEVICE = {"name": "NVIDIA H200", "capability": [9, 0], "error": ""}
TORCH: dict[str, Any] = {
    "version": "2.12.0+cu130",
    "cuda": "13.0",
    "nccl": "2.29.7",
    "numpy_error": "",
    "devices": [],
    "architectures": ["sm_90"],
    "driver_cuda": 0,
}


def distribution(name: str, version: str, *packages: str, requires: tuple[str, ...] = ()) -> Distribution:
    return Distribution(name, version, packages, tuple(map(parse_requirement, requires)))


def installed(*distributions: Distribution) -> dict[str, Distribution]:
    return {each.name: each for each in distributions}


BASE = installed(
    distribution("cvplugins", "0.1.0", "cvplugins"),
    distribution("torch", "2.12.0", "torch"),
    distribution("torchvision", "0.27.0", "torchvision", requires=("torch (==2.12.0)",)),
    distribution("numpy", "2.4.6", "numpy"),
    distribution("opencv-python", "5.0.0.93", "cv2"),
    distribution("triton", "3.7.0", "triton"),
)
OUTCOMES = {
    "numpy": Outcome("ok"),
    "torch": Outcome("ok", answers=TORCH),
    "torchvision": Outcome("ok", answers={"version": "0.27.0+cu130"}),
    "cv2": Outcome("ok"),
    "triton": Outcome("ok"),
}


def facts(
    *,
    distributions: dict[str, Distribution] | None = None,
    outcomes: dict[str, Outcome] | None = None,
    **others: Any,
) -> Facts:
    """Return the facts where all is fine, but for what is given."""
    return Facts(
        machine=others.pop("machine", FINE),
        distributions=BASE | (distributions or {}),
        outcomes=OUTCOMES | (outcomes or {}),
        **others,
    )


def torch(**answers: Any) -> Outcome:
    """Return how torch's probe went, but for some answers."""
    return Outcome("ok", answers=TORCH | answers)


def raised(error: str, type: str = "ImportError", **others: Any) -> Outcome:
    return Outcome("raised", error, type, **others)


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    """Return the findings by their names, of which there is one each."""
    assert len({each.name for each in findings}) == len(findings)
    return {each.name: each for each in findings}
