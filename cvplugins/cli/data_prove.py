"""Prove that a perfect prediction scores 1: the ground truth of training through the config's own evaluator.

Examples:
  cvplugins data prove voc_faster_rcnn_sample
  cvplugins data prove my_config.py --images 500 --json proof.json
  cvplugins data prove my_config.yaml --cfg-options CVPLUGINS.DATA.ROOT=/data/VOCdevkit

Every number below 1 is printed with the step that loses it and the images. The exit code is 0 when all is perfect,
1 when something is lost, 2 for a mistake in the call.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from cvplugins.errors import UserError
from cvplugins.files import check_out, write_whole

from .frameworks import existing_config, framework_of, require_framework

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a proof."""
    parser.add_argument(
        "config", help="config file: .py for OpenMMLab, .yaml for Detectron2; or the name of one of cvplugins"
    )
    parser.add_argument("--cfg-options", nargs="+", action="extend", default=[], help="KEY=VALUE pairs for the config")
    parser.add_argument("--images", type=int, metavar="N", help="at most N images of each data set; default: all")
    parser.add_argument("--json", metavar="FILE", help="write what was found as JSON too")


def run(arguments: argparse.Namespace) -> int:
    """Prove it."""
    if arguments.images is not None and arguments.images < 1:
        raise UserError(f"--images {arguments.images}: expected 1 or more")
    if arguments.json is not None:
        if not arguments.json.endswith(".json"):
            raise UserError(f"--json {arguments.json}: its name must end in .json")
        check_out(arguments.json)
    config = existing_config(arguments.config)
    framework = framework_of(config)
    require_framework(framework)
    options = importlib.import_module(f"{framework.adapter}.run.options").parse_options(arguments.cfg_options)
    adapter: Any = importlib.import_module(f"{framework.adapter}.data.prove")
    proof = adapter.prove(config, options, arguments.images)
    for line in proof.lines():
        sys.stdout.write(f"{line}\n")
    if arguments.json is not None:
        with write_whole(Path(arguments.json)) as temporary:
            temporary.write_text(json.dumps(proof.as_dict(), indent=2))
    return 0 if proof.is_perfect else 1
