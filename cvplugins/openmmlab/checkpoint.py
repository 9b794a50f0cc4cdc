"""Checkpoints that exist whole or not at all, found again after a crash, and opened without running code."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from torch import nn

from cvplugins import safe_loading
from cvplugins.errors import UserError, first_line
from cvplugins.files import write_whole
from cvplugins.registry import HOOKS
from cvplugins.run_folder import RunFolder
from cvplugins.safe_loading import BrokenCheckpointError, check_weights

from .safe_loading import LOG_HISTORY
from .undefined_numbers_hook import monitored_by_checkpoints

__all__ = [
    "AtomicCheckpointHook",
    "AtomicLocalBackend",
    "check_weights_fit",
    "find_checkpoint",
    "open_checkpoint",
    "run_folder",
    "weights_of",
]

BACKEND = "cvplugins_atomic_local"


class AtomicLocalBackend(LocalBackend):
    """mmengine's local file backend, writing to a temporary name first.

    ``LocalBackend.put`` (mmengine/fileio/backends/local_backend.py, 0.10) truncates the target before it
    writes, so that a killed process leaves half a file under the right name.
    """

    def put(self, obj: bytes | memoryview, filepath: str | os.PathLike) -> None:
        """Write ``obj`` to ``filepath``, which holds the old content or all of the new at any moment."""
        with write_whole(filepath) as temporary:
            temporary.write_bytes(obj)


register_backend(BACKEND, AtomicLocalBackend)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook whose files are whole or absent whenever the process is killed.

    A checkpoint in a local folder is written to a temporary name and renamed. With ``max_keep_ckpts`` the oldest
    one is deleted after the new one stands; upstream (mmengine/hooks/checkpoint_hook.py, 0.10) deletes it before.
    The best checkpoint of ``save_best`` is whole too, but upstream still deletes the old one first. A validation
    without training, which upstream ends with an error if ``save_best`` is set (mmengine#1587), saves nothing. Nor does
    one in which the number of ``save_best`` is undefined.
    """

    max_keep_ckpts: int
    keep_ckpt_ids: deque[int]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        is_local = "://" not in str(kwargs.get("out_dir") or "")
        if is_local and not kwargs.get("file_client_args"):
            kwargs.setdefault("backend_args", {"backend": BACKEND})
        super().__init__(*args, **kwargs)
        self._is_training = False

    def before_train(self, runner) -> None:
        """Sweep away what a killed run left half written."""
        super().before_train(runner)
        self._is_training = True
        if is_main_process():
            for path in Path(runner.work_dir).glob(".*.pth.*.tmp"):
                path.unlink()

    def after_val_epoch(self, runner, metrics) -> None:
        """Keep the best checkpoint of a training; a number that is undefined is no value yet."""
        if self._is_training:
            undefined = dict.fromkeys(set(monitored_by_checkpoints(self)) - set(metrics))
            super().after_val_epoch(runner, {**metrics, **undefined})

    def after_train(self, runner) -> None:
        """End the training; validations after it do not count."""
        super().after_train(runner)
        self._is_training = False

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        keep = self.max_keep_ckpts
        outdated = []
        if keep > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
            if len(self.keep_ckpt_ids) == keep:
                outdated.append(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
        self.max_keep_ckpts = -1  # the deletion is ours
        try:
            super()._save_checkpoint_with_step(runner, step, meta)
        finally:
            self.max_keep_ckpts = keep
        if is_main_process():
            for old in outdated:
                path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old))
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)


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
