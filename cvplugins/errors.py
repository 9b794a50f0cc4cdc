"""Errors that a user can mend."""

__all__ = ["DataError", "UserError", "first_line"]


class UserError(ValueError):
    """Something in the config, the data or the command line is wrong; the message says what to do.

    The tools print it as one line and exit with code 2.
    """


class DataError(UserError):
    """Something that the user has to mend in the data."""


def first_line(error: BaseException) -> str:
    """Return what an error says, without its explanation; its type if it says nothing.

    >>> first_line(EOFError())
    'EOFError'
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
