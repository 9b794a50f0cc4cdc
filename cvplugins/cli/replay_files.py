"""Run a failed iteration again from its replay file, of either framework: what ``cvplugins replay`` calls."""

from __future__ import annotations

import importlib
import os
import pickletools
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from cvplugins.detectron2.run.replay_classes import DATA_CLASSES as DETECTRON2_CLASSES
from cvplugins.errors import UserError, first_line
from cvplugins.monitors import Fault, Replay, reproduce
from cvplugins.monitors.random_state import random_state, restore_random_state
from cvplugins.openmmlab.run.replay_classes import DATA_CLASSES as OPENMMLAB_CLASSES
from cvplugins.plain_pickle import NotPlainError
from cvplugins.safe_loading import load_plain

__all__ = ["load_replay", "replay"]

# Each has build_model(config) and compute_losses(model, found).
ADAPTERS = {"openmmlab": "cvplugins.openmmlab.run.replay", "detectron2": "cvplugins.detectron2.run.replay"}

LARGEST_PICKLE = 2**27

DATA_CLASSES = {**OPENMMLAB_CLASSES, **DETECTRON2_CLASSES}


def replay(
    replay_file: str | os.PathLike[str],
    *,
    config: str | os.PathLike[str] | None = None,
    model: nn.Module | None = None,
    trust_replay: bool = False,
) -> tuple[bool, str]:
    """Run a failed iteration again, on a GPU if there is one.

    Args:
        replay_file: Written by ``NonFiniteGuardHook``.
        config: Config that the model is built from; the copy that the run wrote into its folder if None.
        model: The model itself, instead of a config.
        trust_replay: Allow the file to run code while it is loaded.

    Returns:
        Whether what was not finite then was found again, and a text that says what was found.

    Raises:
        UserError: Something is wrong that the user can mend.
    """
    found = load_replay(replay_file, trust_replay)
    adapter = _adapter(found, replay_file)
    if model is None:
        model = adapter.build_model(_config(found, replay_file) if config is None else config)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    if found.autocast is not None and found.autocast[0] == "cuda" and not torch.cuda.is_available():
        found.autocast = ("cpu", "bfloat16")  # the nearest that a CPU has
    _check_model(found, model, replay_file)
    try:
        faults = reproduce(found, model, lambda: adapter.compute_losses(model, found))
    except UserError:
        raise
    except Exception as error:  # a batch of another model can make it raise anything
        raise UserError(
            f"replay file {replay_file}: its iteration cannot be repeated with this config "
            f"({type(error).__name__}: {first_line(error)}); give the run's own with --config"
        ) from error
    then = {(kind, name) for kind, name, *_ in found.faults}
    again = {(fault.kind, fault.name) for fault in faults}
    return bool(then & again), _in_words(found, faults)


def load_replay(path: str | os.PathLike[str], trusted: bool = False) -> Replay:
    """Load a replay file, without running code from it unless it is trusted.

    Raises:
        UserError: The file is missing, broken, no replay file, or holds more than plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"replay file {path} does not exist; NonFiniteGuardHook writes them to WORK_DIR/replay")
    try:
        if trusted:
            found = Replay.from_dict(torch.load(path, map_location="cpu", weights_only=False))
        else:
            found = Replay.from_dict(load_plain(path, _data_classes(path)))
        _check_random(found.random)
        return found
    except NotPlainError as error:
        raise UserError(
            f"replay file {path} holds more than weights and known data ({error.what}); loading it could run code "
            "from the file. If you trust its author, add --trust-replay"
        ) from error
    except UserError:
        raise
    except Exception as error:  # the bytes of another kind of file make unpicklers raise anything
        raise UserError(f"replay file {path} cannot be read: {first_line(error)}") from error


def _check_random(state: dict[str, Any]) -> None:
    """Raise unless the random generators take a state; they are left as they are."""
    before = random_state()
    try:
        restore_random_state(state)
    except Exception as error:  # each generator has its own kinds of errors
        raise ValueError(f"its random state is not one ({type(error).__name__}: {first_line(error)})") from error
    finally:
        restore_random_state(before)


def _check_model(found: Replay, model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Raise unless a replay has the weights of a model."""
    own = model.state_dict()
    problems = [f"{name} is missing" for name in own if name not in found.model]
    problems += [f"{name} is unknown" for name in found.model if name not in own]
    for name, value in found.model.items():
        if name in own and (value.shape, value.dtype) != (own[name].shape, own[name].dtype):
            problems.append(
                f"{name} is {tuple(value.shape)} of {value.dtype}, not {tuple(own[name].shape)} of {own[name].dtype}"
            )
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(
            f"replay file {path} is of another model than the config: {'; '.join(problems[:3])}{more}; "
            "give its own with --config"
        )


def _adapter(found: Replay, path: str | os.PathLike[str]) -> ModuleType:
    if found.framework not in ADAPTERS:
        raise UserError(f"replay file {path} is of {found.framework!r}; known are {', '.join(ADAPTERS)}")
    try:
        return importlib.import_module(ADAPTERS[found.framework])
    except ModuleNotFoundError as error:
        raise UserError(f"replay file {path} is of {found.framework}, which is not installed ({error})") from error


def _config(found: Replay, path: str | os.PathLike[str]) -> Path:
    # The file itself does not hold it: building a model from a config can run anything.
    config = Path(path).resolve().parent.parent / Path(found.config or "").name
    if not config.is_file():
        raise UserError(f"replay file {path}: the run's config {config} does not exist; add --config")
    return config


def _data_classes(path: Path) -> list[type]:
    """Return those of DATA_CLASSES that a file asks for, and import no package that it does not need."""
    with zipfile.ZipFile(path) as archive:
        found = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
        if sum(info.file_size for info in found) > LARGEST_PICKLE:
            raise ValueError("its list of contents is too long")
        pickles = [archive.read(info) for info in found]
    asked = set()
    for code, name, _ in (each for content in pickles for each in pickletools.genops(content)):
        if code.name == "GLOBAL":  # of protocol 2, in which torch writes
            home, _, qualified = str(name).partition(" ")
            asked.add((home.partition(".")[0], qualified))
    classes = []
    for home, known in DATA_CLASSES.items():
        package = home.partition(".")[0]
        wanted = [name for name in known if (package, name) in asked]
        try:
            module = importlib.import_module(home) if wanted else None
        except ModuleNotFoundError as error:
            raise UserError(f"replay file {path} needs {package}, which is not installed ({error})") from error
        classes += [getattr(module, name) for name in wanted if hasattr(module, name)]
    return classes


def _in_words(found: Replay, faults: tuple[Fault, ...]) -> str:
    lines = [f"iteration {found.iteration}, images {', '.join(found.images) or 'unknown'}"]
    lines += [f"then:  {kind} {name}: {detail}" for kind, name, detail, _ in _shortened(found.faults)]
    now = [(fault.kind, fault.name, fault.detail, fault.rank) for fault in faults]
    lines += [f"again: {kind} {name}: {detail}" for kind, name, detail, _ in _shortened(now)]
    if not faults:
        lines.append("again: everything is finite; a fault of several processes, or of the GPU, may not show in one")
    return "\n".join(lines)


def _shortened(faults: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return at most five faults of each kind."""
    shown: dict[str, list[tuple[Any, ...]]] = {}
    for fault in faults:
        shown.setdefault(fault[0], []).append(fault)
    return [fault for kind in shown.values() for fault in kind[:5]]
