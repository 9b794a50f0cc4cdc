"""Evaluate a checkpoint, and write or draw its predictions.

Examples:
  cvplugins test voc_faster_rcnn_sample work_dirs/voc_faster_rcnn_sample/epoch_16.pth
  cvplugins test my_config.py CHECKPOINT --out metrics.json --show-dir drawn
"""

from __future__ import annotations

import argparse
import math

from cvplugins.errors import UserError
from cvplugins.files import check_out
from cvplugins.paths import check_folder

from .frameworks import add_common_arguments, check_checkpoint, existing_config, run_job

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a test."""
    parser.add_argument(
        "config", help="config file: .py for OpenMMLab, .yaml for Detectron2; or the name of one of cvplugins"
    )
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("--out", help="X.json for the metrics, X.pkl for the predictions")
    parser.add_argument("--show-dir", help="folder for images with the predictions drawn in")
    parser.add_argument("--label-dir", help="folder for predictions as PNG label maps")
    parser.add_argument("--mode", choices=["whole", "slide"], help="test whole images or in windows (mmseg)")
    parser.add_argument(
        "--scales", nargs="+", type=float, help="average over sizes, such as 0.5 1 1.5 (mmseg, Mask2Former)"
    )
    parser.add_argument("--flip", action="store_true", help="average with the mirrored image (mmseg, Mask2Former)")
    add_common_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate."""
    arguments.config = existing_config(arguments.config)
    check_out(arguments.out)
    for folder, option in ((arguments.show_dir, "--show-dir"), (arguments.label_dir, "--label-dir")):
        if folder is not None:
            check_folder(folder, option)
    check_checkpoint(arguments.checkpoint)
    for scale in arguments.scales or ():
        if not 0 < scale < math.inf:
            raise UserError(f"--scales {scale}: expected factors above 0, such as 0.5 1 1.5")
    return run_job("evaluate", arguments)
