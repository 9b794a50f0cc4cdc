"""What a class takes for an argument that a config leaves out."""

from __future__ import annotations

import inspect
from typing import Any

__all__ = ["argument_default"]


def argument_default(kind: Any, name: str) -> Any:
    """Return the default of an argument of a class, or of the class that it hands its arguments on to; None if none.

    Args:
        kind: A class; anything else has no defaults.
        name: Of the argument.
    """
    for each in inspect.getmro(kind) if isinstance(kind, type) else ():
        made = vars(each).get("__init__")
        parameter = inspect.signature(made).parameters.get(name) if made is not None else None
        if parameter is not None:
            return None if parameter.default is parameter.empty else parameter.default
    return None
