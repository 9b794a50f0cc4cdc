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
    add_common_arguments(parser)
    return run("evaluate", parser)


if __name__ == "__main__":
    sys.exit(main())
