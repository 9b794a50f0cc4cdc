"""Join the other processes of torchrun, on GPUs or on CPUs."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

import torch
import torch.distributed
from detectron2.utils import comm

from cvplugins.distributed import check_process_count, joined
from cvplugins.errors import UserError

__all__ = ["joined_processes"]


def joined_processes(launcher: str) -> AbstractContextManager[None]:
    """Join the other processes, on Gloo if there is no GPU, and leave them in the end.

    Args:
        launcher: ``"none"``, or ``"pytorch"`` for torchrun.

    Raises:
        UserError: More processes than GPUs, or another launcher.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    check_process_count(processes, torch.cuda.device_count())
    if launcher not in ("none", "pytorch"):
        raise UserError(
            f"--launcher {launcher}: Detectron2 jobs are started by torchrun; under Slurm or MPI start one torchrun on "
            "each node (tools/dist_train.sh with NNODES, NODE_RANK and MASTER_ADDR)"
        )
    return joined(None if launcher == "none" else lambda: _join(processes))


def _join(processes: int) -> None:
    if missing := {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} - set(os.environ):
        raise UserError(
            f"--launcher pytorch: torchrun has not set {', '.join(sorted(missing))}; start it with torchrun"
        )
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    comm.create_local_process_group(processes)
