"""Checkpoints of a run: found again after a crash, opened without running code, and compared with a model."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cvplugins import safe_loading
from cvplugins.errors import UserError, first_line
from cvplugins.run_folder import RunFolder
from cvplugins.safe_loading import BrokenCheckpointError, check_weights

from .safe_loading import LOG_HISTORY

__all__ = [
    "check_weights_fit",
    "find_checkpoint",
    "open_checkpoint",
    "run_folder",
    "weights_of",
]


def run_folder(work_dir: str | os.PathLike, hook: Mapping[str, Any] | None = None) -> RunFolder:
    """Return the checkpoints of a run.

    Args:
        work_dir: The run's folder.
        hook: ``default_hooks.checkpoint`` of its config, which may name another folder and other names.
    """
    hook = hook or {}
    numbered = r"(?:epoch|iter)_(\d+)\.pth"
    if template := hook.get("filename_tmpl"):
        numbered = re.escape(template).replace(re.escape("{}"), r"(\d+)", 1)
    out_dir = hook.get("out_dir")
    if out_dir is not None and "://" not in str(out_dir):
        # mmengine puts a folder of the work dir's name there (mmengine/hooks/checkpoint_hook.py).
        out_dir = Path(out_dir, Path(work_dir).name) if str(out_dir) != str(work_dir) else None
    else:
        out_dir = None
    return RunFolder(Path(work_dir), numbered, r"best_.*\.pth", out_dir)


def find_checkpoint(work_dir: str | os.PathLike) -> Path | None:
    """Return the newest checkpoint of a run, or None."""
    return next(iter(run_folder(work_dir).checkpoints()), None)


def open_checkpoint(path: str | os.PathLike, trusted: bool = False) -> dict[str, Any]:
    """Load a checkpoint to the CPU without running code from it.

    mmengine falls back to ``weights_only=False`` with a warning (mmengine/runner/checkpoint.py, 0.10.12), and
    older ones do nothing else: a file that was merely pointed at could run anything.

    Args:
        path: The file.
        trusted: Whether a file that holds more than plain data may be unpickled.

    Raises:
        UserError: The file is missing, broken, or holds more than plain data and is not ``trusted``.
    """
    return safe_loading.open_checkpoint(path, trusted, LOG_HISTORY)


def check_weights_fit(model: nn.Module, checkpoint: dict[str, Any], path: str | os.PathLike) -> None:
    """Raise ``UserError`` unless a checkpoint holds every parameter and buffer of ``model`` in its shape.

    mmengine loads with ``strict=False``: the weights of another architecture leave the model random, and its
    score of nearly 0 is all that one sees. The weights are loaded here, because models rename old keys then.

    Args:
        model: The model; its weights are replaced.
        checkpoint: What :func:`open_checkpoint` returned.
        path: Where it came from, for the message.
    """
    weights = weights_of(checkpoint, path)
    weights = {name.removeprefix("module."): value for name, value in weights.items()}
    try:
        problems = [f"{name} is missing" for name in model.load_state_dict(weights, strict=False).missing_keys]
    except RuntimeError as error:
        problems = [
            f"{name} is {tuple(weights[name].shape)} and should be {tuple(value.shape)}"
            for name, value in model.state_dict().items()
            if name in weights and weights[name].shape != value.shape
        ] or [first_line(error)]
    if problems:
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        raise UserError(
            f"checkpoint {path} is of another architecture than the config: {shown}. {_trained_on(checkpoint)}"
            "Give the config that it was trained with (it lies in the work dir)"
        )


def weights_of(checkpoint: dict[str, Any], path: str | os.PathLike) -> Mapping[str, Any]:
    """Return what mmengine loads into a model: ``state_dict``, or the whole checkpoint if there is none.

    Raises:
        BrokenCheckpointError: It is no dict of weights.
    """
    if "state_dict" in checkpoint:
        check_weights(checkpoint["state_dict"], f"checkpoint {path}: state_dict")
        return checkpoint["state_dict"]
    weights = {name: value for name, value in checkpoint.items() if isinstance(value, torch.Tensor)}
    if not weights:
        keys = ", ".join(map(str, list(checkpoint)[:5])) or "nothing"
        raise BrokenCheckpointError(f"checkpoint {path} has no state_dict and no weights; it has {keys}")
    check_weights(weights, f"checkpoint {path}")
    return weights


def _trained_on(checkpoint: dict[str, Any]) -> str:
    """Say how many classes a checkpoint of mmengine's is for: a wrong number of them is the usual mistake."""
    meta = checkpoint.get("meta")
    dataset = meta.get("dataset_meta") if isinstance(meta, dict) else None
    classes = dataset.get("classes") if isinstance(dataset, dict) else None
    return f"It was trained on {len(classes)} classes. " if isinstance(classes, (list, tuple)) else ""
