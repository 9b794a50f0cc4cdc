"""AtomicCheckpointHook: checkpoints that exist whole or not at all."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook

from cvplugins.files import write_whole
from cvplugins.openmmlab.hooks.undefined_numbers import monitored_by_checkpoints
from cvplugins.registry import HOOKS

__all__ = ["AtomicCheckpointHook", "AtomicLocalBackend"]

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
