"""Download a data set, verify it, and put it where the configs look for it.

Examples:
  cvplugins data get voc0712                             into data/VOCdevkit
  cvplugins data get coco2017 /disk/data --jobs 4        into /disk/data/coco
  cvplugins data get ade20k --archives ~/Downloads       from archives that you have, Kaggle's copy too
  cvplugins data get voc0712 --mirror https://host/voc   from an address of yours first

Whenever it is interrupted, the same command goes on. If the data is there, it is only looked at. The environment
variable CVPLUGINS_DATA_MIRRORS may hold addresses too, parted by blanks.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cvplugins.errors import UserError

__all__ = ["add_arguments", "run"]

NAMES = ("voc0712", "ade20k", "coco2017")  # cvplugins.datasets.remote.known.DATA_SETS, whose import is not for a parser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a download."""
    parser.add_argument("name", choices=NAMES, help="which data set")
    parser.add_argument("root", nargs="?", default="data", type=Path, help="folder that holds data sets; default: data")
    parser.add_argument(
        "--mirror", action="append", default=[], metavar="URL", help="address of a folder with the archives; repeatable"
    )
    parser.add_argument("--archives", metavar="DIR", type=Path, help="folder with archives that you have already")
    parser.add_argument("--jobs", type=int, default=3, metavar="N", help="downloads side by side; default: 3")
    parser.add_argument("--keep-archives", action="store_true", help="keep the downloaded files in ROOT/archives")


def run(arguments: argparse.Namespace) -> int:
    """Get it."""
    if arguments.jobs < 1:
        raise UserError(f"--jobs {arguments.jobs}: expected 1 or more")
    from cvplugins.datasets.remote.getting import get_data_set
    from cvplugins.datasets.remote.known import DATA_SETS

    try:
        get_data_set(
            DATA_SETS[arguments.name],
            arguments.root.expanduser(),
            mirrors=arguments.mirror,
            archives=arguments.archives.expanduser() if arguments.archives is not None else None,
            jobs=arguments.jobs,
            keep_archives=arguments.keep_archives,
            say=_say,
        )
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on\n")
        return 130
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
