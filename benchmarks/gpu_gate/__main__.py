"""Try this checkout on a machine with a GPU and no network.

On a machine with network, in the checkout's folder:

    uv run python -m benchmarks.gpu_gate collect --wheels DIR [--present FILE]

On the machine with the GPU, with the same checkout and DIR:

    python3 -m benchmarks.gpu_gate run --wheels DIR [--out DIR]

docs/gpu_gate.md says what travels, what runs and what the exit code means.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cvplugins.errors import UserError

from .parts import SECONDS
from .running import run
from .wheels import LIMIT_MB, PLATFORM, collect

ROOT = Path(__file__).parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_gate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    gathering = commands.add_parser("collect", help="build and download the wheels that the GPU machine lacks")
    gathering.add_argument("--wheels", type=Path, required=True, help="folder; wheels that lie there are replaced")
    gathering.add_argument("--python", default="3.12", help="the GPU machine's Python (default: 3.12)")
    gathering.add_argument("--platform", default=PLATFORM, help=f"its platform tag (default: {PLATFORM})")
    gathering.add_argument("--present", type=Path, help="file with the packages it has, such as `pip freeze` there")
    gathering.add_argument("--limit", type=float, default=LIMIT_MB, help=f"megabytes in all (default: {LIMIT_MB})")
    gathering.add_argument("--everything", action="store_true", help="take matplotlib, scikit-image and mmdet along")
    gathering.add_argument("--detectron2", action="store_true", help="take along what Detectron2 imports")
    running = commands.add_parser("run", help="install the wheels in a folder of their own, run everything, report")
    running.add_argument("--wheels", type=Path, required=True, help="folder that `collect` filled")
    running.add_argument("--out", type=Path, default=Path("gpu_gate"), help="folder for report.json and log.txt")
    running.add_argument("--seconds", type=float, default=SECONDS, help=f"for all of it (default: {SECONDS})")
    running.add_argument("--detectron2", type=Path, help="a checkout of Detectron2")
    running.add_argument("--mask2former", type=Path, help="a checkout of the original Mask2Former")
    options = parser.parse_args(arguments)
    try:
        if options.command == "collect":
            collect(ROOT, options)
            return 0
        return run(ROOT, options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
