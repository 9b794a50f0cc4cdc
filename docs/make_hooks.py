"""Write docs/hooks.md from the pages in docs/hooks; with --check only say whether it is up to date."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from generated import link_arxiv, write_or_check

from cvplugins.registry import HOOKS, TASK_UTILS

FOLDER = Path(__file__).parent
PAGE = FOLDER / "hooks.md"
PARTS = FOLDER / "hooks"
HEADER = "<!-- Written by docs/make_hooks.py from the files in docs/hooks. -->"
FIRST = "introduction.md"
LAST = ("Optimizers.md", "Detectron2.md", "Upstream.md")  # not about a hook that OpenMMLab has of us


def page() -> str:
    """Return the whole page.

    Raises:
        ValueError: A registered hook is described nowhere, or a page is about none.
    """
    names = set(HOOKS.names())
    pages = {path.name: path.read_text(encoding="utf-8").strip() for path in sorted(PARTS.glob("*.md"))}
    described = {name: re.findall(r"^## (\w+)$", text, re.MULTILINE) for name, text in pages.items()}
    missing = names - {hook for hooks in described.values() for hook in hooks}
    if missing:
        raise ValueError(f"docs/hooks describes nowhere: {', '.join(sorted(missing))}")
    known = names | set(TASK_UTILS.names())  # what keeps a training alive without being a hook
    strange = [name for name, hooks in described.items() if name not in (FIRST, *LAST) and not known & set(hooks)]
    if strange:
        raise ValueError(f"docs/hooks/{strange[0]} has no section (## Name) about a registered hook")
    middle = [name for name in pages if name not in (FIRST, *LAST)]
    order = [FIRST, *middle, *(name for name in LAST if name in pages)]
    listed = [hook for name in middle for hook in described[name] if hook in known]
    overview = "\n".join(f"- [`{hook}`](#{hook.lower()})" for hook in listed)
    texts = [pages[order[0]], overview, *(pages[name] for name in order[1:])]
    return link_arxiv("\n\n".join([HEADER, *texts])) + "\n"


def main() -> int:
    """Write or check the page; return the exit code."""
    return write_or_check(PAGE, page, "make_hooks.py", __doc__)


if __name__ == "__main__":
    sys.exit(main())
