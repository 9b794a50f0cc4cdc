"""Repeat an iteration that was not finite: python tools/replay.py work_dirs/RUN/replay/iter_N_rank0.pt."""

import argparse
import sys

from cvplugins.errors import UserError
from cvplugins.replaying import replay


def main() -> int:
    """Read the command line and replay.

    Returns:
        0 if the failure happens again, 1 if not, 2 for a mistake that the user can mend.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("replay_file", help="file that NonFiniteGuardHook wrote")
    parser.add_argument("--config", help="config that the model is built from, if not the copy in the run's folder")
    parser.add_argument("--trust-replay", action="store_true", help="let the file run code when it is loaded")
    try:
        reproduced, text = replay(**vars(parser.parse_args()))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    print(text)
    print("reproduced" if reproduced else "not reproduced")
    return 0 if reproduced else 1


if __name__ == "__main__":
    sys.exit(main())
