"""Open checkpoints that hold weights and plain data, and nothing else: no code from the file runs."""

from __future__ import annotations

import _compat_pickle
import codecs
import os
import pickle
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from .errors import UserError, first_line

__all__ = ["load_plain", "load_plain_pickle", "open_checkpoint"]


def open_checkpoint(path: str | os.PathLike[str], trusted: bool = False, known: Sequence[Any] = ()) -> dict[str, Any]:
    """Load a checkpoint to the CPU without running code from it.

    Args:
        path: The file; one that ends in ``.pkl`` is a plain pickle, as Detectron2's model zoo has them.
        trusted: Whether a file that holds more than plain data may be unpickled.
        known: See :func:`load_plain`.

    Raises:
        UserError: The file is missing, broken, or holds more than plain data and is not ``trusted``.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist; give the path of a .pth file")
    try:
        checkpoint = _load_trusted(path) if trusted else _load_untrusted(path, known)
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from error
    except Exception as error:  # the bytes of another kind of file make unpicklers raise anything
        raise _unreadable(path, first_line(error)) from error
    if not isinstance(checkpoint, dict):
        raise _unreadable(path, f"it holds a {type(checkpoint).__name__}, not a dict")
    return checkpoint


def load_plain(path: str | os.PathLike[str], known: Sequence[Any] = ()) -> Any:
    """Load what ``torch.save`` wrote to the CPU without running code from it.

    Besides torch's own types, NumPy arrays and numbers are taken.

    Args:
        path: The file.
        known: More classes and functions to take, by their module and qualified name. Loading an instance must not
            run anything but set its attributes.

    Raises:
        pickle.UnpicklingError: The file asks for something else.
    """
    if hasattr(torch.serialization, "safe_globals"):
        with torch.serialization.safe_globals([*_numpy(), *known]):
            return torch.load(path, map_location="cpu", weights_only=True)
    # Before torch 2.5 nothing can be added to what weights_only takes.
    return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_restricted_pickle(known))


def load_plain_pickle(path: str | os.PathLike[str]) -> Any:
    """Load a pickle of NumPy arrays and plain containers without running code from it.

    Strings of Python 2 are read as Latin-1, in which NumPy's arrays of that time are written.

    Args:
        path: The file.

    Raises:
        pickle.UnpicklingError: The file asks for something else, or is no pickle.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "weights.pkl")
        >>> _ = path.write_bytes(pickle.dumps({"conv1_w": np.zeros(2)}))
        >>> load_plain_pickle(path)
        {'conv1_w': array([0., 0.])}
    """
    plain = {"collections.OrderedDict": OrderedDict, "_codecs.encode": _encode, "builtins.set": set}
    with open(path, "rb") as file:
        try:
            return _unpickler(plain | _by_name(_numpy()))(file, encoding="latin1").load()
        # A pickle may call what it is allowed to with any arguments.
        except (AttributeError, ImportError, IndexError, KeyError, TypeError) as error:
            raise pickle.UnpicklingError(first_line(error)) from error


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Return bytes as protocol 2 writes them; ``codecs.encode`` itself looks for modules by the encoding's name."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"encoding {encoding!r} is not allowed")
    return codecs.latin_1_encode(text)[0]


def _numpy() -> list[Any]:
    makers = [np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]]  # their module depends on the version
    numbers = np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"
    types = [slice, np.ndarray, np.dtype, *{type(np.dtype(code)) for code in numbers}]
    # NumPy 1 and NumPy 2 write different names for the same function.
    makers_by_name = [_renamed(maker, f"numpy.{core}.multiarray") for maker in makers for core in ("core", "_core")]
    of_protocol_5 = np.zeros(1).__reduce_ex__(5)[0]
    return types + makers_by_name + [_renamed(of_protocol_5, f"numpy.{core}.numeric") for core in ("core", "_core")]


def _renamed(function: Any, module: str) -> Callable[..., Any]:
    """Return a function under the name by which a checkpoint asks for it."""

    def call(*arguments: Any) -> Any:
        return function(*arguments)

    call.__module__, call.__qualname__ = module, function.__name__
    return call


def _by_name(known: Sequence[Any]) -> dict[str, Any]:
    return {f"{each.__module__}.{each.__qualname__}": each for each in known}


def _unpickler(known: Mapping[str, Any]) -> type[pickle.Unpickler]:
    """Return an unpickler that finds nothing but what is known."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
            module = _compat_pickle.IMPORT_MAPPING.get(module, module)
            if f"{module}.{name}" not in known:
                raise pickle.UnpicklingError(f"GLOBAL {module}.{name} was not allowed")
            return known[f"{module}.{name}"]

    return Unpickler


def _restricted_pickle(known: Sequence[Any]) -> SimpleNamespace:
    """Return what ``torch.load`` takes for a pickle module; it finds nothing but what is allowed."""
    from torch._weights_only_unpickler import _get_allowed_globals

    # What later versions of torch know: bytes in protocol 2, milestones of schedulers.
    later = {"_codecs.encode": codecs.encode, "collections.Counter": Counter, "builtins.set": set}
    allowed = {**later, **_get_allowed_globals(), **_by_name([*_numpy(), *known])}
    unpickler = _unpickler(allowed)

    def load(file: Any, **options: Any) -> Any:
        return unpickler(file, **options).load()

    return SimpleNamespace(__name__="restricted_pickle", Unpickler=unpickler, load=load)


def _load_untrusted(path: Path, known: Sequence[Any]) -> Any:
    return load_plain_pickle(path) if path.suffix == ".pkl" else load_plain(path, known)


def _load_trusted(path: Path) -> Any:
    if path.suffix != ".pkl":
        return torch.load(path, map_location="cpu", weights_only=False)
    with path.open("rb") as file:
        return pickle.load(file, encoding="latin1")


def _refusal(path: Path, message: str) -> UserError:
    """Tell a file that asks for more than plain data from one that is no checkpoint at all."""
    reasons = (r"GLOBAL (\S+) (?:was not|whose)", r"(getattr\(.*\)) is not allowed", r"Unsupported class (\S+)")
    for reason in reasons:
        if found := re.search(reason, message):
            return UserError(
                f"checkpoint {path} holds more than weights and plain data ({found[1]}); loading it could run code "
                "from the file. If you trust its author, add --trust-checkpoint"
            )
    found = re.search(r"WeightsUnpickler error:\s*([^\n]+)", message)
    return _unreadable(path, found[1] if found else message.partition("\n")[0])


def _unreadable(path: Path, reason: str) -> UserError:
    return UserError(f"checkpoint {path} cannot be read ({reason}); is it a whole checkpoint file?")
