"""Run a failed iteration of mmengine's Runner again: what ``tools/replay.py`` calls."""

from __future__ import annotations

import importlib
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from cvplugins.errors import UserError, first_line
from cvplugins.monitors import Fault, Replay, reproduce

from .config import load_config
from .safe_loading import load_plain

__all__ = ["load_replay", "loss_components", "replay", "run_forward"]

# What batches consist of besides tensors and plain data; restoring one only sets attributes.
DATA_CLASSES = {
    "mmengine.structures": ("BaseDataElement", "InstanceData", "LabelData", "PixelData"),
    "mmdet.structures": ("DetDataSample", "ReIDDataSample", "TrackDataSample"),
    "mmdet.structures.bbox": ("HorizontalBoxes",),
    "mmdet.structures.mask": ("BitmapMasks", "PolygonMasks"),
    "mmseg.structures": ("SegDataSample",),
}


def replay(
    replay_file: str | os.PathLike,
    *,
    config: str | os.PathLike | None = None,
    model: nn.Module | None = None,
    trust_replay: bool = False,
) -> tuple[bool, str]:
    """Run a failed iteration again, on a GPU if there is one.

    Args:
        replay_file: Written by ``NonFiniteGuardHook``.
        config: Config that the model is built from; the copy that mmengine put into the work dir if None.
        model: The model itself, instead of a config.
        trust_replay: Allow the file to run code while it is loaded.

    Returns:
        Whether what was not finite then was found again, and a text that says what was found.

    Raises:
        UserError: Something is wrong that the user can mend.
    """
    found = load_replay(replay_file, trust_replay)
    if model is None:
        model = _build_model(found, replay_file, config)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    if found.autocast is not None and found.autocast[0] == "cuda" and not torch.cuda.is_available():
        found.autocast = ("cpu", "bfloat16")  # the nearest that a CPU has
    try:
        faults = reproduce(found, model, lambda: loss_components(run_forward(model, found.batch)))
    except RuntimeError as error:
        if "Error(s) in loading state_dict" not in str(error):
            raise
        wrong = f"replay file {replay_file} is of another model than the config"
        raise UserError(f"{wrong}: {str(error).splitlines()[1].strip()}; give its own with --config") from error
    then = {(kind, name) for kind, name, *_ in found.faults}
    again = {(fault.kind, fault.name) for fault in faults}
    return bool(then & again), _in_words(found, faults)


def load_replay(path: str | os.PathLike, trusted: bool = False) -> Replay:
    """Load a replay file, without running code from it unless it is trusted.

    Raises:
        UserError: The file is missing, broken, no replay file, or holds more than plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"replay file {path} does not exist; NonFiniteGuardHook writes them to WORK_DIR/replay")
    try:
        if trusted:
            return Replay.from_dict(torch.load(path, map_location="cpu", weights_only=False))
        return Replay.from_dict(load_plain(path, _data_classes()))
    except pickle.UnpicklingError as error:
        known = re.search(r"GLOBAL (\S+) (?:was not|whose)|Unsupported class (\S+)", str(error))
        what = next(filter(None, known.groups())) if known else first_line(error)
        raise UserError(
            f"replay file {path} holds more than weights and known data ({what}); loading it could run code from the "
            "file. If you trust its author, add --trust-replay"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, TypeError) as error:
        raise UserError(f"replay file {path} cannot be read: {first_line(error)}") from error


def run_forward(model: nn.Module, batch: Any) -> Mapping[str, Any]:
    """Return the losses of a batch, as mmengine's ``BaseModel.train_step`` computes them."""
    return model._run_forward(model.data_preprocessor(batch, True), mode="loss")


def loss_components(losses: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``BaseModel.parse_losses`` adds up: tensors, or lists of them, with "loss" in their name."""
    return {name: value for name, value in losses.items() if "loss" in name and isinstance(value, (Tensor, list))}


def _build_model(found: Replay, replay_file: str | os.PathLike, config: str | os.PathLike | None) -> nn.Module:
    if config is None:
        # The file itself does not hold it: building a model from a config can run anything.
        config = Path(replay_file).resolve().parent.parent / Path(found.config or "").name
        if not config.is_file():
            raise UserError(f"replay file {replay_file}: the run's config {config} does not exist; add --config")
    cfg = load_config(config)
    if cfg.get("model") is None:
        raise UserError(f"config {config} has no model; give the run's config with --config")
    if cfg.get("default_scope"):
        init_default_scope(cfg.default_scope)
    try:
        return MODELS.build(cfg.model)
    except KeyError as error:
        raise UserError(f"the model of config {config} cannot be built: {first_line(error)}") from error


def _data_classes() -> list[type]:
    classes = []
    for module_name, names in DATA_CLASSES.items():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError:
            continue  # a batch of a package that is not installed could not be run anyway
        classes += [getattr(module, name) for name in names if hasattr(module, name)]
    return classes


def _in_words(found: Replay, faults: tuple[Fault, ...]) -> str:
    lines = [f"iteration {found.iteration}, images {', '.join(found.images) or 'unknown'}"]
    lines += [f"then:  {kind} {name}: {detail}" for kind, name, detail, _ in _shortened(found.faults)]
    now = [(fault.kind, fault.name, fault.detail, fault.rank) for fault in faults]
    lines += [f"again: {kind} {name}: {detail}" for kind, name, detail, _ in _shortened(now)]
    if not faults:
        lines.append("again: everything is finite; a fault of several processes, or of the GPU, may not show in one")
    return "\n".join(lines)


def _shortened(faults: list) -> list:
    """Return at most five faults of each kind."""
    shown: dict[str, list] = {}
    for fault in faults:
        shown.setdefault(fault[0], []).append(fault)
    return [fault for kind in shown.values() for fault in kind[:5]]
