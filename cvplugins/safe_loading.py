"""Open checkpoints that hold weights and plain data, and nothing else: no code from the file runs."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import UserError, first_line
from .plain_pickle import NotPlainError
from .torch_files import OLD_START, ZIP_START, read_plain_pickle, read_torch_file

__all__ = ["BrokenCheckpointError", "check_weights", "load_plain", "load_plain_pickle", "open_checkpoint"]


class BrokenCheckpointError(UserError):
    """A checkpoint is not whole, or not what it should be; another one may be."""


def open_checkpoint(path: str | os.PathLike[str], trusted: bool = False, known: Sequence[Any] = ()) -> dict[str, Any]:
    """Load a checkpoint to the CPU without running code from it, on any version of torch.

    Args:
        path: The file; one that ends in ``.pkl`` may be a plain pickle, as Detectron2's model zoo has them.
        trusted: Whether a file that holds more than plain data may be unpickled.
        known: See :func:`load_plain`.

    Raises:
        BrokenCheckpointError: The file is cut off, damaged, or holds no dict.
        UserError: The file is missing, or holds more than plain data and is not ``trusted``.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} {_what_is_there(path)}; give the path of a .pth file")
    try:
        checkpoint = _load(path, trusted, known)
    except NotPlainError as error:
        raise UserError(
            f"checkpoint {path} holds more than weights and plain data ({error.what}); loading it could run code "
            "from the file. If you trust its author, add --trust-checkpoint"
        ) from error
    except EOFError as error:
        raise _unreadable(path, "it ends early") from error
    except PermissionError as error:
        raise UserError(f"checkpoint {path} cannot be read ({first_line(error)})") from error
    except Exception as error:  # the bytes of another kind of file make unpicklers raise anything
        raise _unreadable(path, first_line(error)) from error
    if not isinstance(checkpoint, dict):
        raise _unreadable(path, f"it holds a {type(checkpoint).__name__}, not a dict")
    return checkpoint


def load_plain(path: str | os.PathLike[str], known: Sequence[Any] = ()) -> Any:
    """Load what ``torch.save`` wrote to the CPU without running code from it.

    Besides torch's own types, NumPy arrays and numbers are taken. The checksums of the file are verified.

    Args:
        path: The file.
        known: More classes and functions to take, by their module and qualified name. Loading an instance must not
            run anything but set its attributes.

    Raises:
        NotPlainError: The file asks for something else.
        pickle.UnpicklingError: It is no file of torch's.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "weights.pth")
        >>> torch.save({"bias": torch.zeros(2)}, path)
        >>> load_plain(path)
        {'bias': tensor([0., 0.])}
    """
    with open(path, "rb") as file:
        return read_torch_file(file, known)


def load_plain_pickle(path: str | os.PathLike[str], known: Sequence[Any] = ()) -> Any:
    """Load a pickle of NumPy arrays, tensors and plain containers without running code from it.

    Strings of Python 2 are read as Latin-1, in which NumPy's arrays of that time are written.

    Args:
        path: The file.
        known: See :func:`load_plain`.

    Raises:
        NotPlainError: The file asks for something else.
        pickle.UnpicklingError: It is no pickle.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "weights.pkl")
        >>> _ = path.write_bytes(pickle.dumps({"conv1_w": np.zeros(2)}))
        >>> load_plain_pickle(path)
        {'conv1_w': array([0., 0.])}
    """
    with open(path, "rb") as file:
        return read_plain_pickle(file, known)


def check_weights(weights: Any, source: str) -> None:
    """Raise unless something is a dict of tensors or arrays by their names.

    Args:
        weights: What a checkpoint holds where weights should be.
        source: What the message begins with, such as ``"checkpoint a.pth: state_dict"``.

    Raises:
        BrokenCheckpointError: It is something else.

    Example:
        >>> check_weights({"bias": 1}, "checkpoint a.pth: state_dict")
        Traceback (most recent call last):
        ...
        cvplugins.safe_loading.BrokenCheckpointError: checkpoint a.pth: state_dict['bias'] is a int, not a tensor
    """
    if not isinstance(weights, Mapping):
        raise BrokenCheckpointError(f"{source} is {_in_words(weights)}, not a dict of weights")
    for name, value in weights.items():
        if not isinstance(name, str):
            raise BrokenCheckpointError(f"{source} has the key {name!r:.40}, which is not the name of a weight")
        # What a module keeps beside its weights is its own matter; versions are mmengine's.
        if not isinstance(value, (Tensor, np.ndarray)) and not name.endswith("_extra_state"):
            raise BrokenCheckpointError(f"{source}[{name!r:.80}] is {_in_words(value)}, not a tensor")
        if isinstance(value, np.ndarray) and value.dtype.kind not in "biufc":
            raise BrokenCheckpointError(f"{source}[{name!r:.80}] is an array of {value.dtype}, not of numbers")


def _in_words(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _what_is_there(path: Path) -> str:
    return "is not a file" if path.exists() else "does not exist"


def _load(path: Path, trusted: bool, known: Sequence[Any]) -> Any:
    with path.open("rb") as file:
        start = file.read(len(OLD_START))
        file.seek(0)
        is_pickle = path.suffix == ".pkl" and start != OLD_START and not start.startswith(ZIP_START)
        try:
            return read_plain_pickle(file) if is_pickle else read_torch_file(file, known)
        except NotPlainError:
            if not trusted:
                raise
        file.seek(0)
        if is_pickle:
            return pickle.load(file, encoding="latin1")
        return torch.load(file, map_location="cpu", weights_only=False)


def _unreadable(path: Path, reason: str) -> BrokenCheckpointError:
    return BrokenCheckpointError(f"checkpoint {path} cannot be read ({reason}); is it a whole checkpoint file?")
