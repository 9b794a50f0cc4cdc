"""Say what is installed, and what is wrong with it or with the machine.

Examples:
  cvplugins doctor
  cvplugins doctor --config voc_faster_rcnn_sample    check a config and its data too, as a dry run does
  cvplugins doctor --json

The exit code is 1 with an error among the findings, else 0.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping
from typing import Any

from cvplugins.detectron2.run.doctor import PART as DETECTRON2
from cvplugins.doctor import MACHINE, PYTHON, Facts, Finding, Part, Probe, Status, examine, to_json, to_text
from cvplugins.doctor.findings import error, ok
from cvplugins.doctor.import_errors import shortened
from cvplugins.openmmlab.run.doctor import PART as OPENMMLAB

__all__ = ["add_arguments", "run"]

DRY_RUN = "dry run"
DRY_RUN_LIMIT = 1800.0  # seconds; a dry run reads every annotation
MAX_WIDTH = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the doctor."""
    parser.add_argument("--config", metavar="CONFIG", help="also check this config, its plugins and its data")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; return 1 if there is an error among them, else 0."""
    parts = [MACHINE, PYTHON, OPENMMLAB, DETECTRON2]
    if arguments.config:
        parts.append(_config_part(arguments.config))
    is_terminal = sys.stdout.isatty()
    if sys.stderr.isatty():
        sys.stderr.write("importing what is installed ...")
        sys.stderr.flush()
    report = examine(parts)
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")  # back to an empty line
        sys.stderr.flush()
    width = min(shutil.get_terminal_size().columns, MAX_WIDTH) if is_terminal else MAX_WIDTH
    colour = is_terminal and not os.environ.get("NO_COLOR")
    text = to_json(report) if arguments.json else to_text(report, width=width, colour=colour)
    encoding = sys.stdout.encoding or "utf-8"
    # The arrow, or a path, may be what the terminal's encoding lacks.
    sys.stdout.write(f"{text}\n".encode(encoding, "replace").decode(encoding))
    return int(report.status is Status.ERROR)


def dry_run(config: str) -> Mapping[str, Any]:
    """Do what ``cvplugins train CONFIG --dry-run`` does; called in the process that tries imports."""
    from . import train

    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    train.run(parser.parse_args([config, "--dry-run"]))
    return {}


def _config_part(config: str) -> Part:
    probe = Probe(DRY_RUN, (), f"{__name__}:dry_run", (config,), DRY_RUN_LIMIT)
    return Part("Config", lambda facts: [check_config(facts, config)], (probe,))


def check_config(facts: Facts, config: str) -> Finding:
    """Return how the dry run of a config went."""
    name, outcome = "config", facts.outcome(DRY_RUN)
    if outcome.state == "ok":
        return ok(name, f"{config}, its plugins and its data are fine")
    if outcome.needs:
        broken = outcome.needs.partition(".")[0]
        return error(name, f"{config} needs {outcome.needs}, which is broken", f"mend {broken} first")
    if outcome.type == "UserError":  # its message names the config and the next step
        return error(name, outcome.error, f"mend it, then: cvplugins doctor --config {config}")
    said = shortened(f"{outcome.type}: {outcome.error}" if outcome.type else outcome.error)
    return error(name, f"{config}: {said}", f"cvplugins train {config} --dry-run shows where")
