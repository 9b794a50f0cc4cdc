"""Convert a Faster R-CNN checkpoint from MMDetection to Detectron2, or back.

Example:
  cvplugins convert-weights in.pth out.pth --from mmdet --to detectron2
"""

from __future__ import annotations

import argparse
import sys

from cvplugins.errors import UserError
from cvplugins.files import check_weights_out

from .frameworks import check_checkpoint_file

__all__ = ["add_arguments", "run"]

FRAMEWORKS = ("mmdet", "detectron2")  # cvplugins.weights.FRAMEWORKS, whose import is not for a parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a conversion."""
    parser.add_argument("source_file", metavar="IN", help=".pth, or .pkl of Detectron2's model zoo")
    parser.add_argument("target_file", metavar="OUT", help=".pth; replaced if it exists")
    parser.add_argument("--from", dest="source", choices=FRAMEWORKS, required=True, help="framework of IN")
    parser.add_argument("--to", dest="target", choices=FRAMEWORKS, required=True, help="framework of OUT")
    parser.add_argument(
        "--trust-checkpoint", dest="trusted", action="store_true", help="let IN run code when it is loaded"
    )


def run(arguments: argparse.Namespace) -> int:
    """Convert."""
    if arguments.source == arguments.target:
        raise UserError(f"weights of {arguments.source} need no conversion for {arguments.target}")
    check_checkpoint_file(arguments.source_file)
    check_weights_out(arguments.target_file)
    from cvplugins.weights import convert_checkpoint

    sys.stdout.write(f"{convert_checkpoint(**vars(arguments))}\n")
    return 0
