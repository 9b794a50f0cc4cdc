"""All that is changed in OpenMMLab's own modules and classes, because they leave no other way.

Each names the upstream file and its version. What these change is as before where nothing of ours is in use.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mmengine.config.utils import MODULE2PACKAGE
from mmengine.runner import CheckpointLoader
from mmengine.utils import is_installed

__all__ = ["checkpoint_readers", "make_mmseg_configs_reachable"]


def make_mmseg_configs_reachable() -> None:
    """Let ``_base_ = 'mmseg::...'`` find the configs of the fork ``onedl-mmsegmentation``.

    mmengine/config/utils.py (onedl-mmengine 0.10.12) asks for the original distribution's name,
    ``mmsegmentation``, and reports it as not installed. Nothing changes where the original is installed.
    """
    if not is_installed("mmsegmentation") and is_installed("onedl-mmsegmentation"):
        MODULE2PACKAGE["mmseg"] = "onedl-mmsegmentation"


@contextlib.contextmanager
def checkpoint_readers(prefixes: Sequence[str], read: Callable[..., dict[str, Any]]) -> Iterator[None]:
    """Let mmengine read checkpoints whose names begin with one of some prefixes by a function of ours.

    mmengine/runner/checkpoint.py (0.10.12) keeps its readers in an attribute of ``CheckpointLoader``, which can only be
    added to; here it is as before in the end.
    """
    before = CheckpointLoader._schemes
    CheckpointLoader._schemes = dict(before)
    CheckpointLoader.register_scheme(prefixes, read, force=True)
    try:
        yield
    finally:
        CheckpointLoader._schemes = before
