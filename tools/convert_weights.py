"""Convert a Faster R-CNN checkpoint: python tools/convert_weights.py in.pth out.pth --from mmdet --to detectron2."""

import argparse
import sys

from cvplugins.command_line import run_without_framework
from cvplugins.weights import FRAMEWORKS, convert_checkpoint


def main() -> int:
    """Read the command line and convert."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source_file", metavar="IN", help=".pth, or .pkl of Detectron2's model zoo")
    parser.add_argument("target_file", metavar="OUT", help=".pth; replaced if it exists")
    parser.add_argument("--from", dest="source", choices=FRAMEWORKS, required=True, help="framework of IN")
    parser.add_argument("--to", dest="target", choices=FRAMEWORKS, required=True, help="framework of OUT")
    parser.add_argument(
        "--trust-checkpoint", dest="trusted", action="store_true", help="let IN run code when it is loaded"
    )
    return run_without_framework(convert_checkpoint, parser)


if __name__ == "__main__":
    sys.exit(main())
