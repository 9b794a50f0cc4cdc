"""Repeat an iteration that was not finite: python tools/replay.py work_dirs/RUN/replay/iter_N_rank0.pt."""

import sys

from cvplugins.cli import run_command


def main() -> int:
    """Run ``cvplugins replay``."""
    return run_command("replay", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
