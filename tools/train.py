"""Train a model: python tools/train.py configs/voc_faster_rcnn_sample.py."""

import sys

from cvplugins.cli import run_command


def main() -> int:
    """Run ``cvplugins train``."""
    return run_command("train", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
