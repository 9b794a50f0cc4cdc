"""Repeat an iteration that was not finite; exit code 0 if it fails again, 1 if not.

Example:
  cvplugins replay work_dirs/RUN/replay/iter_N_rank0.pt
"""

from __future__ import annotations

import argparse
import sys

from cvplugins.paths import check_source

from .frameworks import existing_config

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a replay."""
    parser.add_argument("replay_file", help="file that NonFiniteGuardHook wrote")
    parser.add_argument("--config", help="config that the model is built from, if not the copy in the run's folder")
    parser.add_argument("--trust-replay", action="store_true", help="let the file run code when it is loaded")


def run(arguments: argparse.Namespace) -> int:
    """Replay; see the docstring of the module for the exit code."""
    check_source(arguments.replay_file, "replay file", "NonFiniteGuardHook writes them to WORK_DIR/replay")
    if arguments.config is not None:
        arguments.config = existing_config(arguments.config)
    from .replay_files import replay

    reproduced, text = replay(**vars(arguments))
    sys.stdout.write(f"{text}\n{'reproduced' if reproduced else 'not reproduced'}\n")
    return 0 if reproduced else 1
