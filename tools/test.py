"""Evaluate a checkpoint: python tools/test.py configs/voc_faster_rcnn_sample.py CHECKPOINT."""

import sys

from cvplugins.cli import run_command


def main() -> int:
    """Run ``cvplugins test``."""
    return run_command("test", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
