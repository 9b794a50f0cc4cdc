"""What the scripts that write a page share: write it, or only check that it is up to date."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["link_arxiv", "write_or_check"]

ARXIV = re.compile(r"arXiv:(\d{4}\.\d{5}|\d{4}\.\d{4})")


def link_arxiv(text: str) -> str:
    """Return a text with links for its arXiv numbers.

    >>> link_arxiv("arXiv:1706.04599")
    '[arXiv:1706.04599](https://arxiv.org/abs/1706.04599)'
    """
    return ARXIV.sub(r"[\g<0>](https://arxiv.org/abs/\1)", text)


def write_or_check(path: Path, page: Callable[[], str], script: str, description: str | None) -> int:
    """Read the command line, write or check the page, and return the exit code.

    Args:
        path: Of the page.
        page: Returns its text.
        script: Name of the script that writes it.
        description: Of the script.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page is out of date")
    arguments = parser.parse_args()
    text = page()
    if not arguments.check:
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path}")
        return 0
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return 0
    print(f"{path} is out of date; run python docs/{script}", file=sys.stderr)
    return 1
