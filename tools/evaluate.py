"""Evaluate saved predictions without a model: python tools/evaluate.py results.json --annotations annotations.json."""

import argparse
import sys

from cvplugins.command_line import run_without_framework
from cvplugins.evaluation.command import evaluate_saved


def main() -> int:
    """Read the command line, evaluate and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("predictions", help="COCO results .json, folder of VOC comp4 .txt, mmdet's .pkl, or folder of label .png")
    add("--annotations", required=True, help="COCO .json, folder such as VOCdevkit/VOC2007, or folder of label .png")
    add("--split", help="list of a VOC folder, such as test")
    add("--classes", nargs="+", help="names, or a .txt file with one a line; all of the annotations if absent")
    add("--rules", nargs="+", help="coco, voc2007, voc2012, detectron2, detectron2_2012; the first decides errors")
    add("--score-threshold", type=float, default=0.5, help="where to measure precision, recall, F1 and errors")
    add("--boxes", action="store_true", help="compare boxes even where there are masks")
    add("--boundary", action="store_true", help="boundary IoU and F1 of label images")
    add("--ignore-index", type=int, default=255, help="label of pixels that do not count")
    add("--reduce-zero-label", choices=["none", "labels", "both"], default="none", help="where 0 means no class")
    add("--out-dir", help="folder for results as JSON and figures")
    add("--trust-pickle", action="store_true", help="open a .pkl, which runs the code in it")
    return run_without_framework(evaluate_saved, parser)


if __name__ == "__main__":
    sys.exit(main())
