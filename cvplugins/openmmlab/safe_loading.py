"""Load checkpoints that hold weights and plain data, and nothing else."""

from __future__ import annotations

import _compat_pickle
import codecs
import os
import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer

__all__ = ["load_plain"]

NUMPY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")


def load_plain(path: str | os.PathLike, classes: Sequence[type] = ()) -> Any:
    """Load a file to the CPU without running code from it.

    Besides torch's own types, NumPy arrays and numbers and mmengine's log history are taken. mmengine's own list
    (get_torch_safe_globals) also has ``getattr``, which could fetch anything.

    Args:
        path: The file.
        classes: More classes to take; loading an instance must not run anything but set its attributes.

    Raises:
        pickle.UnpicklingError: The file asks for something else.
    """
    if hasattr(torch.serialization, "safe_globals"):
        with torch.serialization.safe_globals(_allowed(classes)):
            return torch.load(path, map_location="cpu", weights_only=True)
    # Before torch 2.5 nothing can be added to what weights_only takes.
    return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_restricted_pickle(classes))


def _allowed(classes: Sequence[type]) -> list[Any]:
    makers = [np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]]  # their module depends on the version
    numbers = np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"
    types = [
        HistoryBuffer,
        _history_statistic,
        slice,
        np.ndarray,
        np.dtype,
        *{type(np.dtype(code)) for code in numbers},
        *classes,
    ]
    # NumPy 1 and NumPy 2 write different names for the same function.
    return types + [_renamed(maker, module) for maker in makers for module in NUMPY_MODULES]


def _renamed(function: Callable[..., Any], module: str) -> Callable[..., Any]:
    """Return a function under the name by which a checkpoint asks for it."""

    def call(*arguments: Any) -> Any:
        return function(*arguments)

    call.__module__, call.__qualname__ = module, function.__name__
    return call


def _history_statistic(owner: type, name: str) -> Any:
    """Return a statistic of mmengine's HistoryBuffer: the only use that its checkpoints make of ``getattr``."""
    if owner is not HistoryBuffer or name.startswith("_") or name not in vars(HistoryBuffer):
        raise pickle.UnpicklingError(f"getattr({owner}, {name!r}) is not allowed")
    return getattr(owner, name)


# The unpickler goes by these names: in a checkpoint, "getattr" means the function above.
_history_statistic.__module__, _history_statistic.__qualname__ = "builtins", "getattr"


def _restricted_pickle(classes: Sequence[type]) -> SimpleNamespace:
    """Return what ``torch.load`` takes for a pickle module; it finds nothing but what is allowed."""
    from torch._weights_only_unpickler import _get_allowed_globals

    # What later versions of torch know: bytes in protocol 2, milestones of schedulers.
    later = {"_codecs.encode": codecs.encode, "collections.Counter": Counter, "builtins.set": set}
    known = {**later, **_get_allowed_globals()}
    known.update({f"{each.__module__}.{each.__qualname__}": each for each in _allowed(classes)})

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
            module = _compat_pickle.IMPORT_MAPPING.get(module, module)
            if f"{module}.{name}" not in known:
                raise pickle.UnpicklingError(f"GLOBAL {module}.{name} was not allowed")
            return known[f"{module}.{name}"]

    def load(file: Any, **options: Any) -> Any:
        return Unpickler(file, **options).load()

    return SimpleNamespace(__name__="restricted_pickle", Unpickler=Unpickler, load=load)
