"""Judge Python, torch and the libraries that every framework shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .distributions import owners
from .examination import Facts
from .findings import Finding, error, ok, warning
from .import_errors import Package, explain
from .imports import Probe
from .versions import fits, is_older, version_key

__all__ = ["PROBES", "check_python"]

PROBES = (
    Probe("numpy", ("numpy",)),
    Probe("torch", ("torch",), "cvplugins.doctor.torch_facts:describe_torch"),
    Probe("torchvision", ("torchvision",), "cvplugins.doctor.torch_facts:use_torchvision"),
    Probe("cv2", ("cv2",)),
    Probe("triton", ("triton",)),
)
OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 12)
OLDEST_TORCH = "2.1"
OLDEST_TRITON = "3.0"
NUMPY_2_TORCH = "2.3"  # the first that was built for NumPy 2
OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
# The first driver for each major version of CUDA, by NVIDIA's table of minor version compatibility.
DRIVERS = {11: "450", 12: "525", 13: "580"}


def check_python(facts: Facts) -> list[Finding]:
    """Return what is to be said of Python and the shared libraries."""
    return [
        _python(facts),
        ok("cvplugins", facts.version("cvplugins") or "from a folder on the path, not installed"),
        _torch(facts),
        *_cuda(facts),
        _torchvision(facts),
        _numpy(facts),
        *_opencv(facts),
        _triton(facts),
    ]


def _python(facts: Facts) -> Finding:
    value = ".".join(map(str, facts.python))
    if OLDEST_PYTHON <= facts.python[:2] <= NEWEST_PYTHON:
        return ok("Python", value)
    return warning(
        "Python", f"{value}; the frameworks are made for 3.10 to 3.12", "uv venv --python 3.12, and install again"
    )


def _torch(facts: Facts) -> Finding:
    outcome, version = facts.outcome("torch"), facts.torch_version
    if outcome.state == "missing":
        return error("torch", "not installed", facts.installer.torch())
    if outcome.state != "ok":
        return explain(Package("torch", "torch", version), outcome, facts.installer)
    if is_older(version, OLDEST_TORCH):
        return error(
            "torch",
            f"{version}, older than {OLDEST_TORCH}",
            facts.installer.install(f'"torch>={OLDEST_TORCH}" torchvision'),
        )
    said = outcome.answers.get("numpy_error")
    if said:
        return error("torch", f"{version}, cannot use NumPy {facts.version('numpy')}: {said}", _older_numpy(facts))
    build = outcome.answers.get("cuda") and f"CUDA {outcome.answers['cuda']}"
    build = build or (outcome.answers.get("rocm") and f"ROCm {outcome.answers['rocm']}") or "CPU only"
    return ok("torch", f"{version}, built for {build}" if build != "CPU only" else f"{version}, {build}")


def _cuda(facts: Facts) -> list[Finding]:
    """Return whether torch can use the GPUs, and with which NCCL."""
    outcome = facts.outcome("torch")
    if outcome.state != "ok":
        return []
    answers, findings = outcome.answers, [_gpus_of_torch(facts, outcome.answers)]
    if answers.get("cuda"):
        findings.append(
            ok("NCCL", answers["nccl"])
            if answers.get("nccl") or not facts.has_gpu
            else warning("NCCL", "not in this build of torch", facts.installer.torch(facts.torch_version))
        )
    return [finding for finding in findings if finding.value]


def _gpus_of_torch(facts: Facts, answers: Mapping[str, Any]) -> Finding:
    name, devices, cuda = "CUDA", answers.get("devices", []), str(answers.get("cuda", ""))
    if devices:
        return _devices(facts, answers)
    if not facts.machine.gpus or answers.get("rocm"):
        return ok(name, "no GPU: training runs on the CPU")
    if not cuda:
        value = "torch is built for the CPU only, beside a GPU"
        return warning(name, value, facts.installer.torch(facts.torch_version))
    driver_cuda = int(answers.get("driver_cuda", 0))
    major = version_key(cuda)[0]
    if driver_cuda and driver_cuda // 1000 < major:
        newest = f"{driver_cuda // 1000}.{driver_cuda % 1000 // 10}"
        needed = f" (driver {DRIVERS[major]} or newer)" if major in DRIVERS else ""
        value = f"driver {facts.machine.driver} runs CUDA up to {newest}; torch is built for {cuda}{needed}"
        return error(name, value, facts.installer.torch())
    if "CUDA_VISIBLE_DEVICES" in facts.environment:
        value = f"hidden by CUDA_VISIBLE_DEVICES={facts.environment['CUDA_VISIBLE_DEVICES']!r}"
        return warning(name, value, "unset CUDA_VISIBLE_DEVICES")
    return error(name, "torch does not see the GPU", 'python -c "import torch; torch.zeros(1).cuda()" says why')


def _devices(facts: Facts, answers: Mapping[str, Any]) -> Finding:
    for index, device in enumerate(answers["devices"]):
        if device.get("error"):
            capability = "{}.{}".format(*device["capability"])
            built = ", ".join(answers.get("architectures", []))
            value = f"GPU {index} (compute capability {capability}): {device['error']}; torch is built for {built}"
            advice = facts.installer.torch() if "kernel image" in device["error"] else "nvidia-smi shows who uses it"
            return error("CUDA", value, advice)
    count = len(answers["devices"])
    driver = int(answers.get("driver_cuda", 0))
    newest = f", the driver runs up to {driver // 1000}.{driver % 1000 // 10}" if driver else ""
    return ok("CUDA", f"{answers['cuda']} on {count} GPU{'s' if count > 1 else ''}{newest}")


def _torchvision(facts: Facts) -> Finding:
    outcome, version = facts.outcome("torchvision"), facts.version("torchvision")
    if outcome.state == "missing":
        return error("torchvision", "not installed", facts.installer.torch(facts.torch_version))
    version = str(outcome.answers.get("version", "")) or version
    wanted = _wanted_torch(facts)
    # What it says that it needs is clearer than the error that this leads to.
    if wanted and facts.version("torch") and not fits(facts.version("torch"), wanted):
        value = f"{version}, built for torch {wanted}, beside torch {facts.version('torch')}"
        return error("torchvision", value, facts.installer.torch(facts.torch_version))
    if outcome.state != "ok":
        package = Package("torchvision", "torchvision", version, torch=facts.torch_version)
        return explain(package, outcome, facts.installer)
    return ok("torchvision", version)


def _wanted_torch(facts: Facts) -> str:
    found = facts.distributions.get("torchvision")
    needed = found.requirements if found else ()
    return next((each.specifiers for each in needed if each.name == "torch" and not each.extra), "")


def _numpy(facts: Facts) -> Finding:
    outcome, version = facts.outcome("numpy"), facts.version("numpy")
    if outcome.state == "missing":
        return error("NumPy", "not installed", facts.installer.install("numpy"))
    if outcome.state != "ok":
        return explain(Package("NumPy", "numpy", version), outcome, facts.installer)
    if not is_older(version, "2") and facts.torch_version and is_older(facts.torch_version, NUMPY_2_TORCH):
        return error("NumPy", f"{version}; torch {facts.torch_version} was built for NumPy 1", _older_numpy(facts))
    return ok("NumPy", version)


def _older_numpy(facts: Facts) -> str:
    opencv = [f'"{name}<4.12"' for name in OPENCV if not is_older(facts.version(name) or "0", "4.12")]
    return facts.installer.install(" ".join(['"numpy<2"', *opencv]))


def _opencv(facts: Facts) -> list[Finding]:
    outcome = facts.outcome("cv2")
    found = owners(facts.distributions, "cv2")
    if outcome.state == "missing":
        return []  # what needs it says so
    version = found[0].version if found else ""
    names = " and ".join(each.name for each in found) or "from a folder on the path"
    if len({each.version for each in found}) > 1:
        return [_several_opencv(facts)]
    if outcome.state != "ok":
        distribution = found[0].name if found else "opencv-python"
        return [explain(Package("OpenCV", distribution, version), outcome, facts.installer)]
    return [ok("OpenCV", f"{version} ({names})")]


def _several_opencv(facts: Facts) -> Finding:
    """Each of them writes the folder ``cv2``: of two versions, files of both are there."""
    found = owners(facts.distributions, "cv2")
    newest = max(found, key=lambda each: version_key(each.version))
    remove = facts.installer.uninstall(" ".join(each.name for each in found))
    value = " and ".join(f"{each.name} {each.version}" for each in found) + " overwrite each other's files"
    install = facts.installer.install(f"{newest.name}=={newest.version}")
    return warning("OpenCV", value, f"{remove} && {install}")


def _triton(facts: Facts) -> Finding:
    """Return which path multi-scale deformable attention takes."""
    name, outcome, version = "Triton", facts.outcome("triton"), facts.version("triton")
    has_gpu = bool(facts.outcome("torch").answers.get("devices"))
    slow = "deformable attention takes the path in torch"
    if not has_gpu:
        return ok(name, f"{version or 'not installed'}; without a GPU {slow}")
    if outcome.state == "missing":
        return warning(name, f"not installed; {slow}, which is slower", facts.installer.install("triton"))
    if outcome.state != "ok":
        problem = explain(Package(name, "triton", version), outcome, facts.installer)
        return warning(name, f"{problem.value}; {slow}, which is slower", problem.advice)
    if version and is_older(version, OLDEST_TRITON):
        value = f"{version}, older than {OLDEST_TRITON}; {slow}, which is slower"
        return warning(name, value, "take a newer torch, which brings its own Triton")
    # It compiles a small C file when its first kernel starts.
    if not facts.machine.c_compiler.version:
        value = f"{version}, but there is no C compiler that runs; {slow}, which is slower"
        return warning(name, value, "apt-get install gcc, or let CC name a C compiler")
    if not facts.has_python_headers:
        value = f"{version}, but Python's headers are missing; {slow}, which is slower"
        return warning(name, value, "apt-get install python3-dev, or take a Python of uv, which has them")
    return ok(name, f"{version}; deformable attention takes its kernel")
