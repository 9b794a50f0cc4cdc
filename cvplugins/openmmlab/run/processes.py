"""Join the other processes of a launcher, on GPUs or on CPUs."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

import torch
import torch.distributed
from mmengine.config import Config
from mmengine.dist import init_dist

from cvplugins.distributed import check_process_count, joined
from cvplugins.errors import UserError

__all__ = ["joined_processes"]


def joined_processes(cfg: Config) -> AbstractContextManager[None]:
    """Join the other processes of ``cfg.launcher``, on Gloo if there is no GPU, and leave them in the end.

    Raises:
        UserError: More processes than GPUs, or a launcher that needs a GPU where there is none.
    """
    check_process_count(int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count())
    return joined(None if cfg.launcher == "none" else lambda: _join(cfg))


def _join(cfg: Config) -> None:
    if torch.cuda.is_available():
        init_dist(cfg.launcher, **cfg.get("env_cfg", {}).get("dist_cfg", {"backend": "nccl"}))
    elif cfg.launcher == "pytorch":
        # mmengine/dist/utils.py (0.10.12) calls torch.cuda.set_device whatever the backend, so this comes first.
        torch.distributed.init_process_group("gloo")
        # mmengine's own wrapper hands device_ids to DDP, which takes none on the CPU.
        if cfg.get("model_wrapper_cfg") is None:
            cfg.model_wrapper_cfg = {"type": "cvplugins.SyncBatchNormDataParallel", "convert": False}
    else:
        raise UserError(f"--launcher {cfg.launcher} needs a GPU; on the CPU use --launcher pytorch")
    if cfg.get("model_wrapper_cfg") is not None:
        # mmengine/runner/runner.py reads the config's key only where no wrapper is named.
        cfg.model_wrapper_cfg.setdefault("find_unused_parameters", cfg.get("find_unused_parameters", False))
