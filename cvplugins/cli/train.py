"""Train a model, evaluate it, and say where everything lies.

Examples:
  cvplugins train voc_faster_rcnn_sample
  cvplugins train my_config.py --work-dir runs/1 --cfg-options train_dataloader.batch_size=4
  cvplugins train my_config.yaml --resume
"""

from __future__ import annotations

import argparse

from cvplugins.errors import UserError

from .frameworks import add_common_arguments, check_checkpoint, check_seed, existing_config, run_job

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a training."""
    parser.add_argument(
        "config", help="config file: .py for OpenMMLab, .yaml for Detectron2; or the name of one of cvplugins"
    )
    parser.add_argument(
        "--resume", nargs="?", const="auto", help="a checkpoint; without a value the newest in the work dir"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="begin anew in a work dir with checkpoints, which are deleted"
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision (GPU)")
    parser.add_argument("--auto-scale-lr", action="store_true", help="scale the learning rate with the batch size")
    parser.add_argument("--seed", type=int, help="seed of all randomness")
    add_common_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train."""
    arguments.config = existing_config(arguments.config)
    if arguments.overwrite and arguments.resume:
        raise UserError("--overwrite begins anew and --resume goes on: give one of them")
    if arguments.resume not in (None, "auto"):
        check_checkpoint(arguments.resume)
    check_seed(arguments.seed)
    return run_job("train", arguments)
