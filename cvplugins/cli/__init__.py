"""The console command ``cvplugins``: one file a subcommand, which parses and calls; nothing heavy is imported before.

A module of this folder is a subcommand if :data:`cvplugins.cli.main.COMMANDS` names it. The first line of its docstring
is its help; ``add_arguments(parser)`` adds its options, and ``run(arguments)`` does it and returns the exit code.
"""

from .main import COMMANDS, main, run_command

__all__ = ["COMMANDS", "main", "run_command"]
