"""Check a config, its plugins and its data."""

from __future__ import annotations

import argparse
import importlib
import sys

from cvplugins.command_line import framework_of

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a dry run."""
    parser.add_argument("config", help="config file: .py for OpenMMLab, .yaml for Detectron2")
    parser.add_argument("--dry-run", action="store_true", required=True, help="check, and stop")


def run(arguments: argparse.Namespace) -> int:
    """Do the dry run, and print what it found."""
    launch = importlib.import_module(f"{framework_of(arguments.config).adapter}.launch")
    sys.stdout.write(f"{launch.train(arguments.config, dry_run=arguments.dry_run)}\n")
    return 0
