"""Train a model: python tools/train.py configs/voc_faster_rcnn_sample.py."""

import argparse
import sys

from cvplugins.command_line import add_common_arguments, run


def main() -> int:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="config file: .py for OpenMMLab, .yaml for Detectron2")
    parser.add_argument(
        "--resume", nargs="?", const="auto", help="a checkpoint; without a value the newest in the work dir"
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision (GPU)")
    parser.add_argument("--auto-scale-lr", action="store_true", help="scale the learning rate with the batch size")
    parser.add_argument("--seed", type=int, help="seed of all randomness")
    add_common_arguments(parser)
    return run("train", parser)


if __name__ == "__main__":
    sys.exit(main())
