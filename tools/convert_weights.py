"""Convert a Faster R-CNN checkpoint: python tools/convert_weights.py in.pth out.pth --from mmdet --to detectron2."""

import sys

from cvplugins.cli import run_command


def main() -> int:
    """Run ``cvplugins convert-weights``."""
    return run_command("convert-weights", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
