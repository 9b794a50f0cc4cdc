"""Errors that a user can mend."""

from collections.abc import Sequence

__all__ = ["DataError", "UserError", "first_line", "refuse"]


class UserError(ValueError):
    """Something in the config, the data or the command line is wrong; the message says what to do.

    The tools print it as one line and exit with code 2.
    """


class DataError(UserError):
    """Something that the user has to mend in the data.

    Attributes:
        problems: Each problem on its own, where the message tells of several; else the message.
    """

    def __init__(self, message: str = "", problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems) or (message,)


def refuse(error: DataError) -> None:
    """Raise an error: how a check reports before training. The command that lists everything collects instead."""
    raise error


def first_line(error: BaseException) -> str:
    """Return what an error says, without its explanation; its type if it says nothing.

    >>> first_line(EOFError())
    'EOFError'
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
