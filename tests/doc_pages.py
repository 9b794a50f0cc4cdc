"""Read the pages in docs/: their sections, their blocks of code and what stands above each block."""

import re
from pathlib import Path

__all__ = ["DOCS", "anchors", "blocks", "labelled", "sections"]

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def sections(text, level):
    """Return the text below each heading of a level, up to the next one of this level or a higher one."""
    parts = re.split(rf"^(#{{1,{level}}}) (.+)$", BLOCK.sub(_hide_comments, text), flags=re.MULTILINE)
    found = zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    return {title: body.replace("\0", "#") for marks, title, body in found if len(marks) == level}


def blocks(text, language):
    """Return the blocks of code in a language."""
    return [code for found, code in BLOCK.findall(text) if found == language]


def labelled(text):
    """Return the block below each bold label that stands alone in its line."""
    found = re.findall(r"^\*\*([^*\n]+)\*\*\n\n```\w+\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return dict(found)


def anchors(text):
    """Return the anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def _hide_comments(block):
    return re.sub(r"^#", "\0", block[0], flags=re.MULTILINE)
