"""Turn the formulas of the pages into MathML, which browsers draw without a script. MkDocs calls it for each page.

Formulas are written as GitHub reads them: a block ``math`` or, within a line, a formula between dollars, which may have
backticks inside the dollars.
"""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert

__all__ = ["on_page_markdown", "with_mathml"]

# Code comes before formulas between plain dollars, because a dollar in code is one.
PART = re.compile(
    r"""
    ^```math\n(?P<block>.*?)^```$
    | ^(?P<indent>\ *)```.*?^(?P=indent)```$
    | \$`(?P<quoted>[^`]+)`\$
    | `[^`\n]+`
    | \$(?P<plain>[^$\n]+)\$
    """,
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page with its formulas as MathML; this is an event of MkDocs."""
    return with_mathml(markdown)


def with_mathml(markdown: str) -> str:
    """Return Markdown with its formulas as MathML and everything else as it was."""
    return PART.sub(_replace, markdown)


def _replace(part: re.Match[str]) -> str:
    if part["block"] is not None:
        return f"<div>{_mathml(part['block'], 'block')}</div>\n"
    formula = part["quoted"] or part["plain"]
    # Within a span, because Markdown takes a line that begins with <math> for a block.
    return part[0] if formula is None else f"<span>{_mathml(formula, 'inline')}</span>"


def _mathml(formula: str, display: str) -> str:
    # A bar would end the cell of a table, and a star begin an emphasis.
    return convert(formula.strip(), display=display).replace("|", "&#124;").replace("*", "&#42;")
