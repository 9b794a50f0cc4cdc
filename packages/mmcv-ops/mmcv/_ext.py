"""mmcv's compiled module without a compiler: each name translates mmcv's calling convention to ``cvplugins.ops``.

The convention: tensors first, then options by the names that mmcv/ops/csrc/pytorch/pybind.cpp gives them. Most
operators write into tensors that the caller has made (``output``, ``grad_input``) and return nothing. Nothing is
computed here. Functions stand in sections, one for each file of ``cvplugins.ops``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any, NoReturn

# ---------------------------------------------------------------------------------------------------------------------
# What mmcv says about its build
# ---------------------------------------------------------------------------------------------------------------------


def get_compiler_version() -> str:
    """Return what stands where a compiled mmcv names its compiler."""
    return "none (cvplugins-mmcv-ops)"


def get_compiling_cuda_version() -> str:
    """Return what an mmcv that was compiled without CUDA returns."""
    return "not available"


# ---------------------------------------------------------------------------------------------------------------------
# Everything else
# ---------------------------------------------------------------------------------------------------------------------


def __getattr__(name: str) -> Callable[..., Any]:
    """Return a function that names an operator which needs the compiled mmcv; mmcv/utils/ext_loader.py asks for all."""
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def missing(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            f"mmcv's operator {name} is not in cvplugins-mmcv-ops; it needs the compiled mmcv: {_compile_command()}"
        )

    return missing


def _compile_command() -> str:
    """Return the command that compiles the installed version of mmcv; mmcv-lite is mmcv without operators."""
    installed = {found.metadata["Name"]: found.version for found in metadata.distributions()}
    source = "onedl-mmcv" if "onedl-mmcv" in installed else "mmcv"
    version = installed.get(source) or installed.get("mmcv-lite")
    requirement = source if version is None else f"{source}=={version}"
    return f"pip install --no-build-isolation --no-cache-dir --force-reinstall --no-deps {requirement}"
