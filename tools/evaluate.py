"""Evaluate saved predictions without a model: python tools/evaluate.py results.json --annotations annotations.json."""

import sys

from cvplugins.cli import run_command


def main() -> int:
    """Run ``cvplugins evaluate``."""
    return run_command("evaluate", description=__doc__)


if __name__ == "__main__":
    sys.exit(main())
