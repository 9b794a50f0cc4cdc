"""Draw a small data set in the layout of PASCAL VOC or ADE20K, on which the sample configs train.

Examples:
  cvplugins sample voc                   into data/sample/VOCdevkit, where voc_faster_rcnn_sample looks for it
  cvplugins sample ade20k my/scenes --seed 3
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cvplugins.paths import check_folder
from cvplugins.samples.folders import FOLDERS, check_sample_folder

from .frameworks import check_seed

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a sample."""
    parser.add_argument("kind", choices=tuple(FOLDERS), help="layout and classes")
    parser.add_argument(
        "path", nargs="?", type=Path, help="folder to make; data/sample/VOCdevkit or .../ADEChallengeData2016 if absent"
    )
    parser.add_argument("--seed", type=int, default=0, help="another one draws other images of the same kind")
    parser.add_argument("--force", action="store_true", help="replace an older sample")


def run(arguments: argparse.Namespace) -> int:
    """Draw."""
    check_seed(arguments.seed)
    folder = arguments.path or FOLDERS[arguments.kind]
    check_sample_folder(folder, overwrite=arguments.force)
    check_folder(folder.parent, str(folder))
    from cvplugins.samples.drawing import draw_sample

    drawn = draw_sample(arguments.kind, arguments.path, seed=arguments.seed, overwrite=arguments.force)
    sys.stdout.write(f"{drawn}\n")
    return 0
