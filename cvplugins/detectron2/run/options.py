"""Changes to a config that the command line gives; nothing of Detectron2 is needed to read them."""

from __future__ import annotations

from collections.abc import Sequence

from cvplugins.errors import UserError

__all__ = ["parse_options"]


def parse_options(tokens: Sequence[str]) -> dict[str, str]:
    """Return the dotted keys and values of ``KEY=VALUE`` tokens, or of Detectron2's ``KEY VALUE`` pairs of tokens.

    Raises:
        UserError: A key has no value.

    Example:
        >>> parse_options(["SOLVER.MAX_ITER=10", "SOLVER.BASE_LR", "0.01"])
        {'SOLVER.MAX_ITER': '10', 'SOLVER.BASE_LR': '0.01'}
    """
    options: dict[str, str] = {}
    rest = iter(tokens)
    for token in rest:
        key, equals, given = token.partition("=")
        value = given if equals else next(rest, None)
        if value is None or not key:
            raise UserError(f"--cfg-options {token}: expected KEY=VALUE or KEY VALUE, such as SOLVER.MAX_ITER=100")
        options[key] = value
    return options
