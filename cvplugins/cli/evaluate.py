"""Evaluate saved predictions, without a model and without a framework.

Examples:
  cvplugins evaluate results.json --annotations annotations.json
  cvplugins evaluate comp4_folder --annotations VOCdevkit/VOC2007 --split test --rules voc2007
  cvplugins evaluate label_images --annotations annotations/validation --classes classes.txt
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from cvplugins.errors import UserError
from cvplugins.paths import check_folder, check_source

from .own_data import check_voc_files

__all__ = ["add_arguments", "run"]

# As cvplugins.metrics.DETECTION_RULES, whose import takes seconds.
RULES = ("coco", "coco_mmdet", "voc2007", "voc2012", "detectron2", "detectron2_2012")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of an evaluation."""
    add = parser.add_argument
    add("predictions", help="COCO results .json, folder of VOC comp4 .txt, mmdet's .pkl, or folder of label .png")
    add("--annotations", required=True, help="COCO .json, folder such as VOCdevkit/VOC2007, or folder of label .png")
    add("--split", help="list of a VOC folder, such as test")
    add("--classes", nargs="+", help="names, or a .txt file with one a line; all of the annotations if absent")
    add("--rules", nargs="+", help=f"{', '.join(RULES)}; the first decides errors")
    add(
        "--iou-thresholds",
        nargs="+",
        type=float,
        metavar="IOU",
        help="overlaps that make a match, instead of the rules'",
    )
    add("--score-threshold", type=float, default=0.5, help="where to measure precision, recall, F1 and errors")
    add("--boxes", action="store_true", help="compare boxes even where there are masks")
    add("--boundary", action="store_true", help="boundary IoU and F1 of label images")
    add("--ignore-index", type=int, default=255, help="label of pixels that do not count")
    add("--reduce-zero-label", choices=["none", "labels", "both"], default="none", help="where 0 means no class")
    add("--out-dir", help="folder for results as JSON and figures")
    add("--trust-pickle", action="store_true", help="open a .pkl, which runs the code in it")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and print the table."""
    for path in (arguments.predictions, arguments.annotations):
        if not os.path.exists(path):
            raise UserError(f"{path}: does not exist")
        if not os.path.isdir(path):
            check_source(path, "file")
    if arguments.out_dir is not None:
        check_folder(arguments.out_dir, "--out-dir")
    for rule in arguments.rules or ():
        if rule not in RULES:
            raise UserError(f"no detection rule is called {rule!r}; there are {', '.join(RULES)}")
    if arguments.split is not None and os.path.isdir(arguments.annotations):
        folder = Path(arguments.annotations)
        check_voc_files(folder.parent, [(folder.name, arguments.split)])
    thresholds = arguments.iou_thresholds or ()
    for value in thresholds:
        if not 0 < value <= 1:
            raise UserError(f"--iou-thresholds: {value:g} is no overlap; give numbers above 0, up to 1, such as 0.5")
    if arguments.iou_thresholds is not None:
        arguments.iou_thresholds = sorted(set(thresholds))
    from .evaluate_saved import evaluate_saved

    sys.stdout.write(f"{evaluate_saved(**vars(arguments))}\n")
    return 0
