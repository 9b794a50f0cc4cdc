"""What the command lines of the tools share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from mmengine.config import DictAction

from cvplugins.errors import UserError

__all__ = ["add_common_arguments", "run"]


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that OpenMMLab's own tools have in common, and ours."""
    parser.add_argument("--work-dir", help="folder for checkpoints, logs and results; work_dirs/<config> if absent")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, help="key=value pairs that override the config")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)  # old launchers give it
    parser.add_argument("--trust-checkpoint", action="store_true", help="let a checkpoint run code when it is loaded")
    parser.add_argument("--dry-run", action="store_true", help="check config, plugins, data and checkpoint, and stop")


def run(job: Callable[..., str], parser: argparse.ArgumentParser) -> int:
    """Call ``job`` with the arguments and print what it returns, on the first process.

    Returns:
        The exit code: 0, or 2 for a mistake that the user can mend.
    """
    arguments = vars(parser.parse_args())
    arguments.pop("local_rank")
    try:
        summary = job(**arguments)
    except UserError as error:
        if _is_first():
            sys.stderr.write(f"error: {error}\n")
        return 2
    if _is_first():
        sys.stdout.write(f"{summary}\n")
    return 0


def _is_first() -> bool:
    # Slurm's and MPI's ranks get this variable only when the processes have joined.
    return int(os.environ.get("RANK", 0)) == 0
