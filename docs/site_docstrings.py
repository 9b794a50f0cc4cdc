"""Put docstrings into the form that mkdocstrings reads: griffe calls it for each object."""

from __future__ import annotations

import re
from typing import Any

import griffe

__all__ = ["PlainDocstrings", "plain"]

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`~?(?:[\w.]+\.)?(\w+)`")
SEVERAL = re.compile(r"^( +)(\w+(?:, \w+)+): (.*(?:\n\1 +.*)*)$", re.MULTILINE)


class PlainDocstrings(griffe.Extension):
    """Changes what griffe does not know of our docstrings."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of an object that was read."""
        if obj.docstring is not None:
            obj.docstring.value = plain(obj.docstring.value)


def plain(text: str) -> str:
    r"""Return a docstring with code for Sphinx's roles, a line for each argument, and ``Examples`` for ``Example``.

    >>> plain("See :class:`~cvplugins.losses.FocalLoss`.")
    'See `FocalLoss`.'
    >>> plain("Args:\n    mode, gamma: As in the paper.").splitlines()
    ['Args:', '    mode: As in the paper.', '    gamma: As in the paper.']
    """
    text = SEVERAL.sub(lambda found: "\n".join(f"{found[1]}{name}: {found[3]}" for name in found[2].split(", ")), text)
    return re.sub(r"^(\s*)Example:$", r"\1Examples:", ROLE.sub(r"`\1`", text), flags=re.MULTILINE)
