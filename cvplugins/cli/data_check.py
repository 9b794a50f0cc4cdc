"""Find everything that is wrong with a data set, before training does.

Examples:
  cvplugins data check data/VOCdevkit                    a VOC devkit; no framework is needed
  cvplugins data check data/coco/annotations/train.json data/coco/annotations/val.json
  cvplugins data check data/rooms --classes wall floor --full
  cvplugins data check my_config.py --json               as the config's framework will read it

The exit code is 0 if there are no errors, 1 if there are some, and 2 for a mistake in the command. Warnings are about
what is read all the same. Images that are in two splits are reported, and those that are nearly alike.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvplugins.errors import UserError

from .frameworks import check_config_data, existing_config

if TYPE_CHECKING:
    from cvplugins.datasets.findings import Findings

__all__ = ["add_arguments", "add_data_arguments", "data_of", "run"]

SHOWN = 30  # findings of a kind in the text


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the data is and what its labels mean."""
    parser.add_argument("--layout", choices=["voc", "coco", "labels"], help="what ROOT holds; recognised if absent")
    parser.add_argument("--split", nargs="+", action="extend", default=[], metavar="NAME", help="only these splits")
    parser.add_argument("--images", metavar="DIR", type=Path, help="folder of COCO's images; looked for if absent")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="class names; those that occur if absent")
    parser.add_argument("--reduce-zero-label", action="store_true", help="label 0 of label maps means no class")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a check."""
    parser.add_argument("data", nargs="+", metavar="ROOT|CONFIG", help="data (several JSONs for COCO), or one config")
    parser.add_argument("--full", action="store_true", help="decode every image and label map")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument(
        "--near", type=int, default=None, metavar="BITS", help="bits of 128 in which near duplicates may differ; 10"
    )
    parser.add_argument("--no-leaks", action="store_true", help="do not compare the images of the splits")
    parser.add_argument("--cfg-options", nargs="+", action="extend", default=[], help="KEY=VALUE pairs for the config")
    add_data_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check, and print what was found."""
    if arguments.near is not None and not 0 <= arguments.near <= 128:
        raise UserError(f"--near {arguments.near}: expected 0 to 128 bits")
    from cvplugins.datasets.findings import Findings

    findings = Findings()
    logging.getLogger("cvplugins").addHandler(logging.NullHandler())  # what is warned of becomes a finding
    reports = _check_config(arguments, findings) if _is_config(arguments.data) else _check_data(arguments, findings)
    if arguments.json:
        content = {"data": arguments.data, "splits": reports, **findings.as_json()}
        sys.stdout.write(f"{json.dumps(content, indent=2)}\n")
    else:
        sys.stdout.write("\n".join([*(each["summary"] for each in reports), *_lines(findings)]) + "\n")
    return 1 if findings.errors else 0


def data_of(arguments: argparse.Namespace) -> list[Any]:
    """Return the splits that the arguments name, and complete the classes of ADE20K."""
    from cvplugins.datasets.ade20k import ADE20K_CLASSES
    from cvplugins.datasets.layouts import find_splits

    splits: dict[Any, None] = {}
    for root in arguments.data:
        splits.update(dict.fromkeys(find_splits(root, arguments.layout, arguments.split, arguments.images)))
        if (Path(root) / "objectInfo150.txt").is_file() and arguments.classes is None:
            arguments.classes, arguments.reduce_zero_label = list(ADE20K_CLASSES), True
    return list(splits)


def _is_config(data: list[str]) -> bool:
    """Return whether one config is named: a file, or one of those that come with cvplugins."""
    from cvplugins.config_files import SUFFIXES, config_names

    configs = [each for each in data if Path(each).suffix in SUFFIXES or each in {*config_names()}]
    if configs and len(data) > 1:
        raise UserError(f"{configs[0]} is a config; give it alone")
    return bool(configs)


def _check_config(arguments: argparse.Namespace, findings: Findings) -> list[dict[str, Any]]:
    from cvplugins.datasets.checking.data_check import check_leaks
    from cvplugins.datasets.checking.leaks import NEAR

    config = existing_config(arguments.data[0])
    with contextlib.redirect_stdout(sys.stderr):  # frameworks print while they are imported
        images = check_config_data(config, arguments.cfg_options, findings, arguments.full)
    if not arguments.no_leaks:
        is_same = images.get("test_dataloader") == images.get("val_dataloader")  # often on purpose
        compared = [each for each in images.items() if not (is_same and each[0] == "test_dataloader")]
        check_leaks(compared, findings, NEAR if arguments.near is None else arguments.near)
    return [
        {"name": name, "images": len(paths), "summary": f"{name}: {len(paths):,} images"}
        for name, paths in images.items()
    ]


def _check_data(arguments: argparse.Namespace, findings: Findings) -> list[dict[str, Any]]:
    from cvplugins.datasets.checking.data_check import check_splits
    from cvplugins.datasets.checking.leaks import NEAR

    if arguments.cfg_options:
        raise UserError("--cfg-options is for a config; this is data")
    splits = data_of(arguments)
    near = NEAR if arguments.near is None else arguments.near
    reports = check_splits(
        splits,
        findings,
        classes=arguments.classes,
        reduce_zero_label=arguments.reduce_zero_label,
        full=arguments.full,
        near=None if arguments.no_leaks else near,
    )
    return [
        {"name": each.name, "images": each.images, each.unit: dict(each.objects.most_common()), "summary": str(each)}
        for each in reports
    ]


def _lines(findings: Findings) -> list[str]:
    lines = []
    for (level, kind), found in findings.groups().items():
        lines += ["", f"{kind}: {len(found)} {level}{'s' if len(found) > 1 else ''}"]
        lines += [f"  {' '.join(each.message.split())}" for each in found[:SHOWN]]
        if len(found) > SHOWN:
            lines.append(f"  ... and {len(found) - SHOWN} more; --json lists all")
    return [*lines, "", f"{findings.errors} errors, {findings.warnings} warnings"]
