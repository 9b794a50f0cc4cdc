"""Errors that a user can mend."""

__all__ = ["UserError"]


class UserError(ValueError):
    """Something in the config, the data or the command line is wrong; the message says what to do.

    The tools print it as one line and exit with code 2.
    """
