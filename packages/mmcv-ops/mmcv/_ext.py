"""mmcv's compiled module without a compiler: each name translates mmcv's calling convention to ``cvplugins.ops``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn


def __getattr__(name: str) -> Callable[..., Any]:
    """Return a function that names an operator which needs the compiled mmcv; mmcv/utils/ext_loader.py asks for all."""
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def missing(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            f"mmcv's operator {name} is not in cvplugins-mmcv-ops; compile mmcv's own: "
            "pip install --no-build-isolation --no-cache-dir --force-reinstall --no-deps onedl-mmcv"
        )

    return missing
