"""Data sets: get one, and know that it is whole and what is in it.

Examples:
  cvplugins data get voc0712                       into data/VOCdevkit, where the configs look for it
  cvplugins data get ade20k /data --archives ~/Downloads
  cvplugins data check data/VOCdevkit              all that is wrong with it, at once
  cvplugins data stats data/VOCdevkit --figure voc.png    what is in it, and what to set for it
  cvplugins data prove my_config.py                does a perfect prediction score 1?

`cvplugins data get --help` has the options of one of them.
"""

from __future__ import annotations

import argparse
import importlib
from types import ModuleType

__all__ = ["add_arguments", "run"]

ACTIONS = ("get", "check", "stats", "prove")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions, each with its options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="|".join(ACTIONS))
    for name in ACTIONS:
        module = _module(name)
        first, _, rest = (module.__doc__ or "").partition("\n")
        action = actions.add_parser(
            name,
            help=first,
            description=first,
            epilog=rest.strip("\n"),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(action)
        # As for every other command, behind its name; the one of the parser in front keeps its default.
        action.add_argument(
            "--traceback", action="store_true", default=argparse.SUPPRESS, help="show where an error came from"
        )


def run(arguments: argparse.Namespace) -> int:
    """Do what is asked for, and return the exit code."""
    name = arguments.action
    del arguments.action
    return int(_module(name).run(arguments))


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__package__}.data_{name}")
