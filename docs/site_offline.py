"""Warn of what a built page would load from elsewhere; a strict build fails then. MkDocs calls it after the build."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

__all__ = ["loaded_from_elsewhere", "on_post_build"]

logger = logging.getLogger("mkdocs.hooks.offline")

# Links that a reader follows are fine; what a browser fetches by itself is not.
ASSET = re.compile(
    r"""<(?:script|img|iframe|source|link(?=[^>]*stylesheet))[^>]*?(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)"""
)
IMPORT = re.compile(r"""(?:@import\s*|url\()\s*["']?((?:https?:)?//[^"')\s]+)""")


def on_post_build(config: Any, **_: Any) -> None:
    """Look through the pages and style sheets; this is an event of MkDocs."""
    for path in sorted(Path(config.site_dir).rglob("*")):
        if path.suffix in (".html", ".css"):
            for address in loaded_from_elsewhere(path.read_text(encoding="utf-8")):
                logger.warning("%s loads %s", path.relative_to(config.site_dir), address)


def loaded_from_elsewhere(text: str) -> list[str]:
    """Return the addresses that a browser would load for a page or a style sheet.

    >>> loaded_from_elsewhere('<a href="https://a.org">a</a> <script src="https://b.org/c.js"></script>')
    ['https://b.org/c.js']
    """
    return [*ASSET.findall(text), *IMPORT.findall(text)]
