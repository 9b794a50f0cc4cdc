"""Checkpoints that exist whole or not at all, found again after a crash, and opened without running code."""

from __future__ import annotations

import os
import re
from collections import deque
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from torch import nn

from cvplugins import safe_loading
from cvplugins.errors import UserError, first_line
from cvplugins.files import write_whole
from cvplugins.registry import HOOKS

from .safe_loading import LOG_HISTORY
from .undefined_numbers_hook import monitored_by_checkpoints

__all__ = [
    "AtomicCheckpointHook",
    "AtomicLocalBackend",
    "check_weights_fit",
    "fetch_checkpoint",
    "find_checkpoint",
    "open_checkpoint",
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


def find_checkpoint(work_dir: str | os.PathLike) -> Path | None:
    """Return the newest checkpoint of a run, or None.

    ``last_checkpoint`` is believed if it names a file that exists. It is written after the checkpoint and not
    atomically, so that after a crash it may be empty, old or wrong; then the highest number counts.
    """
    work_dir = Path(work_dir)
    numbered = [
        (int(match[1]), path.stat().st_mtime, path)
        for path in work_dir.glob("*.pth")
        if (match := re.fullmatch(r"(?:epoch|iter)_(\d+)\.pth", path.name))
    ]
    pointer = work_dir / "last_checkpoint"
    if pointer.is_file():
        named = Path(pointer.read_text().strip() or ".")
        for candidate in (named, work_dir / named.name):
            if candidate.is_file() and not any(mtime > candidate.stat().st_mtime for _, mtime, _ in numbered):
                return candidate
    return max(numbered)[2] if numbered else None


def fetch_checkpoint(source: str | os.PathLike) -> Path:
    """Return the path of a checkpoint; one at an http(s) address is downloaded into torch.hub's cache first.

    So that it can be checked before mmengine loads it.

    Raises:
        UserError: The address cannot be reached, or is of another kind.
    """
    scheme, separator, _ = str(source).partition("://")
    if not separator:
        return Path(source)
    if scheme not in ("http", "https"):
        raise UserError(f"checkpoint {source}: {scheme}:// cannot be checked before it is loaded; download it yourself")
    target = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(str(source)).path).name)
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(str(source), str(target))
        except (OSError, ValueError) as error:
            raise UserError(f"checkpoint {source} cannot be downloaded ({first_line(error)})") from error
    return target


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
    weights = checkpoint.get("state_dict", checkpoint)
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


def _trained_on(checkpoint: dict[str, Any]) -> str:
    """Say how many classes a checkpoint of mmengine's is for: a wrong number of them is the usual mistake."""
    meta = checkpoint.get("meta")
    dataset = meta.get("dataset_meta") if isinstance(meta, dict) else None
    classes = dataset.get("classes") if isinstance(dataset, dict) else None
    return f"It was trained on {len(classes)} classes. " if isinstance(classes, (list, tuple)) else ""
