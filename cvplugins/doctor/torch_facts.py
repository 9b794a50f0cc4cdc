"""What torch and torchvision say of themselves and of the GPUs; called in the process that tries imports."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any

__all__ = ["describe_torch", "use_torchvision"]


def describe_torch() -> dict[str, Any]:
    """Return torch's builds and GPUs as JSON can hold them, after one small computation on each GPU."""
    import torch

    devices = [_device(index) for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda or "",
        "rocm": torch.version.hip or "",
        "nccl": _nccl(),
        "threads": torch.get_num_threads(),
        "numpy_error": _numpy_error(),
        "architectures": torch.cuda.get_arch_list() if devices else [],
        "devices": devices,
        "driver_cuda": _driver_cuda(),
    }


def use_torchvision() -> dict[str, Any]:
    """Run a compiled operator of torchvision: it may be missing although the import went well."""
    import torch
    import torchvision

    box = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    kept = torchvision.ops.nms(box, torch.ones(1), 0.5)
    return {"version": torchvision.__version__, "kept": kept.tolist()}


def _device(index: int) -> dict[str, Any]:
    import torch

    found = torch.cuda.get_device_properties(index)
    problem = ""
    try:
        torch.ones(8, device=f"cuda:{index}").sum().item()
    except RuntimeError as error:  # no kernel image for this GPU, no memory, a faulty device
        problem = str(error).strip().splitlines()[0]
    return {"name": found.name, "capability": [found.major, found.minor], "error": problem}


def _nccl() -> str:
    import torch.distributed

    if not (torch.distributed.is_available() and torch.distributed.is_nccl_available()):
        return ""
    return ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]


def _numpy_error() -> str:
    import torch

    try:
        torch.zeros(1).numpy()
    except RuntimeError as error:  # "Numpy is not available", for a NumPy that torch was not built for
        return str(error)
    return ""


def _driver_cuda() -> int:
    """Return the newest CUDA that the driver runs, such as 12040 for 12.4; 0 without a driver."""
    with contextlib.suppress(OSError):
        number = ctypes.c_int(0)
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number)) == 0:
            return number.value
    return 0
