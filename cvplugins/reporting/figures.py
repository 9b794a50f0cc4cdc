"""Make and write figures: without a display, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cvplugins.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["new_figure", "save_figure"]


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches, whose parts make room for each other.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install matplotlib") from error
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, *paths: str | os.PathLike[str]) -> None:
    """Write a figure.

    Args:
        figure: What to write.
        paths: Where to; the suffix is the format: ``.png``, ``.svg`` or another one of matplotlib's. An old file is
            replaced only by a whole new one.
    """
    if not paths:
        return
    from matplotlib import rc_context

    # The layout of many names takes seconds: once is enough.
    figure.draw_without_rendering()
    # With an engine that does nothing, "none", savefig would still draw everything twice.
    with rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)
    for path in map(Path, paths):
        with write_whole(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], dpi=100)
