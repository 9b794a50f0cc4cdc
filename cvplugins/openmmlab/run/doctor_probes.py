"""What OpenMMLab's packages say of themselves; called in the process that tries imports."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["describe_operators", "describe_version"]


def describe_version(package: str) -> dict[str, Any]:
    """Return a package's own version, for one that runs from a folder on the path."""
    return {"version": str(getattr(importlib.import_module(package), "__version__", ""))}


def describe_operators() -> dict[str, Any]:
    """Return which file answers for mmcv's operators, and for which CUDA it was compiled."""
    extension = importlib.import_module("mmcv._ext")
    file = str(extension.__file__)
    compiled = not file.endswith(".py")
    return {"file": file, "compiled": compiled, "cuda": extension.get_compiling_cuda_version() if compiled else ""}
