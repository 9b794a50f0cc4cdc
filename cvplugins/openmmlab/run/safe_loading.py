"""Load files of mmengine without running code from them: plain data, and its log history."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mmengine.logging.history_buffer import HistoryBuffer

from cvplugins import safe_loading
from cvplugins.plain_pickle import NotPlainError

__all__ = ["LOG_HISTORY", "load_plain"]


def load_plain(path: str | os.PathLike, classes: Sequence[type] = ()) -> Any:
    """Load a file to the CPU without running code from it; see :func:`cvplugins.safe_loading.load_plain`.

    mmengine's log history is taken too. mmengine's own list (get_torch_safe_globals) also has ``getattr``, which could
    fetch anything.

    Args:
        path: The file.
        classes: More classes to take; loading an instance must not run anything but set its attributes.

    Raises:
        NotPlainError: The file asks for something else.
    """
    return safe_loading.load_plain(path, [*LOG_HISTORY, *classes])


def _history_statistic(owner: type, name: str) -> Any:
    """Return a statistic of mmengine's HistoryBuffer: the only use that its checkpoints make of ``getattr``."""
    if owner is not HistoryBuffer or name.startswith("_") or name not in vars(HistoryBuffer):
        raise NotPlainError(f"getattr({owner}, {name!r})")
    return getattr(owner, name)


# The unpickler goes by these names: in a checkpoint, "getattr" means the function above.
_history_statistic.__module__, _history_statistic.__qualname__ = "builtins", "getattr"

LOG_HISTORY = (HistoryBuffer, _history_statistic)
