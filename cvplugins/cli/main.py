"""The table of subcommands, and how one of them is run."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType

from cvplugins import __version__
from cvplugins.errors import UserError

from .parser import Parser

__all__ = ["COMMANDS", "main", "run_command"]

COMMANDS = ("train", "test", "evaluate", "data", "convert-weights", "replay", "sample", "doctor")

EXAMPLES = """Examples:
  cvplugins train voc_faster_rcnn_sample            a config that comes with cvplugins; draws its sample first
  cvplugins train my_config.py --work-dir runs/1    a config of your own: .py for OpenMMLab, .yaml for Detectron2
  cvplugins test my_config.py runs/1/epoch_12.pth --out metrics.json
  cvplugins evaluate results.json --annotations annotations.json
  cvplugins doctor                                  what is installed, and what is wrong with it

`cvplugins COMMAND --help` has the options of a command.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 2 for a mistake that the user can mend, or the subcommand's.

    Args:
        argv: The arguments; those of the process if None.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    if given and given[0] in COMMANDS:
        return run_command(given[0], given[1:], prog=f"cvplugins {given[0]}")
    parser = Parser(
        prog="cvplugins",
        usage="%(prog)s COMMAND [ARGUMENT ...]",
        description="Train, test and check models of OpenMMLab and Detectron2 with the plugins of cvplugins.",
        epilog=f"{_list_of_commands()}\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"cvplugins {__version__}")
    if not given:
        parser.print_help()
        return 0
    if not given[0].startswith("-"):
        close = difflib.get_close_matches(given[0], COMMANDS, n=1)
        parser.error(
            f"there is no command {given[0]!r}; "
            + (f"did you mean {close[0]}?" if close else f"there are {', '.join(COMMANDS)}")
        )
    parser.parse_args(given)
    parser.error("name a command; its options come after its name")


def run_command(
    name: str, argv: Sequence[str] | None = None, *, prog: str | None = None, description: str | None = None
) -> int:
    """Parse the arguments of a subcommand, run it and return the exit code; a user's mistake is one line and 2.

    Args:
        name: One of :data:`COMMANDS`.
        argv: Its arguments; those of the process if None.
        prog: What the usage calls it; the name of the running script if None.
        description: What the help says of it; the docstring of its module if None.
    """
    command = _module(name)
    first, _, rest = (command.__doc__ or "").partition("\n")
    parser = Parser(
        prog=prog,
        description=description or first,
        epilog=None if description else rest.strip("\n"),
        formatter_class=argparse.HelpFormatter if description else argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"cvplugins {__version__}", help=argparse.SUPPRESS)
    command.add_arguments(parser)
    parser.add_argument("--traceback", action="store_true", help="show where in the code an error came from")
    arguments = parser.parse_args(argv)
    with_traceback = bool(vars(arguments).pop("traceback"))
    try:
        code = int(command.run(arguments))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads has enough, as `head` does; what is still to be written goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except UserError as error:
        # Slurm's and MPI's ranks get this variable only when the processes have joined.
        if int(os.environ.get("RANK", 0)) == 0:
            if with_traceback:
                traceback.print_exception(error)
            sys.stderr.write(f"error: {error}\n")
        return 2


def _list_of_commands() -> str:
    lines = [f"  {name:<17}{(_module(name).__doc__ or '').splitlines()[0]}" for name in COMMANDS]
    return "\n".join(["Commands:", *lines])


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__package__}.{name.replace('-', '_')}")
