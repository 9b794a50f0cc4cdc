"""A parser of command lines that suggests the option that was meant."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

__all__ = ["Parser"]


class Parser(argparse.ArgumentParser):
    """argparse's parser; its message about a misspelt option names the closest one.

    Example:
        >>> parser = Parser(prog="train", usage="train CONFIG")
        >>> _ = parser.add_argument("--work-dir")
        >>> parser._hint(["--workdir", "runs"])
        '; there is no --workdir: did you mean --work-dir?'
    """

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """Parse, and keep what was given for the message about a mistake."""
        self._given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(self._given, namespace)

    def error(self, message: str) -> NoReturn:
        """Print usage and message, and exit with 2."""
        super().error(message + self._hint(getattr(self, "_given", [])))

    def _hint(self, given: Sequence[str]) -> str:
        known = [option for option in self._option_string_actions if option.startswith("--")]
        for token in given[: given.index("--")] if "--" in given else given:
            option = token.partition("=")[0]
            if not option.startswith("--") or any(each.startswith(option) for each in known):
                continue  # argparse takes the beginning of an option for the option
            close = difflib.get_close_matches(option, known, n=1)
            if close:
                return f"; there is no {option}: did you mean {close[0]}?"
        return ""
