"""Evaluate a checkpoint: python tools/test.py configs/voc_faster_rcnn_sample.py CHECKPOINT."""

import argparse
import sys

from cvplugins.command_line import add_common_arguments, run


def main() -> int:
    """Read the command line and evaluate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file: .py for OpenMMLab, .yaml for Detectron2")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("--out", help="X.json for the metrics, X.pkl for the predictions")
    parser.add_argument("--show-dir", help="folder for images with the predictions drawn in")
    parser.add_argument("--label-dir", help="folder for predictions as PNG label maps (mmseg)")
    parser.add_argument("--mode", choices=["whole", "slide"], help="test whole images or in windows (mmseg)")
    parser.add_argument("--scales", nargs="+", type=float, help="average over sizes, such as 0.5 1 1.5 (mmseg)")
    parser.add_argument("--flip", action="store_true", help="average with the mirrored image (mmseg)")
    add_common_arguments(parser)
    return run("evaluate", parser)


if __name__ == "__main__":
    sys.exit(main())
