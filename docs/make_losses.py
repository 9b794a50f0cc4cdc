"""Write docs/losses.md, a section for each registered loss; with --check only say whether it is up to date."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from generated import link_arxiv, write_or_check
from loss_entries import ENTRIES, FAMILIES, Entry, Nowhere

from cvplugins.openmmlab.loss_adapter import default_loss_name
from cvplugins.registry import MODELS

FOLDER = Path(__file__).parent
PAGE = FOLDER / "losses.md"
INTRODUCTION = FOLDER / "losses_introduction.md"
HEADER = "<!-- Written by docs/make_losses.py from losses_introduction.md, loss_entries.py and the registry. -->"


def registered() -> dict[str, type]:
    """Return the losses of the core under the names of their adapters."""
    found = {name: MODELS.get(name) for name in MODELS.names()}
    cores = {name: getattr(adapter, "core", adapter) for name, adapter in found.items()}
    return {name: core for name, core in cores.items() if core.__module__.startswith("cvplugins.losses.")}


def check_complete(losses: Iterable[str], entries: Mapping[str, Entry]) -> None:
    """Raise ``ValueError`` naming what is missing in the entries, or too much.

    Args:
        losses: The registered names.
        entries: What docs/loss_entries.py says.
    """
    losses = set(losses)
    missing, surplus = sorted(losses - set(entries)), sorted(set(entries) - losses)
    if missing:
        raise ValueError(f"docs/loss_entries.py lacks an entry for {', '.join(missing)}")
    if surplus:
        raise ValueError(f"docs/loss_entries.py has an entry for {', '.join(surplus)}, but there is no such loss")
    strange = sorted({entry.family for entry in entries.values()} - set(FAMILIES))
    if strange:
        raise ValueError(f"docs/loss_entries.py has no family {', '.join(strange)}; it has {', '.join(FAMILIES)}")


def page() -> str:
    """Return the whole page."""
    losses = registered()
    check_complete(losses, ENTRIES)
    parts = [HEADER, INTRODUCTION.read_text(encoding="utf-8").strip(), *(overview(family) for family in FAMILIES)]
    for family in FAMILIES:
        parts.append(f"## {family}")
        parts += [section(entry, losses[entry.name]) for entry in of(family)]
    return "\n\n".join(parts) + "\n"


def of(family: str) -> list[Entry]:
    """Return the entries of a family in their order."""
    return [entry for entry in ENTRIES.values() if entry.family == family]


def overview(family: str) -> str:
    """Return the table of a family."""
    rows = [f"| [`{entry.name}`](#{entry.name.lower()}) | {entry.summary} |" for entry in of(family)]
    return "\n".join([f"**{family}.** {FAMILIES[family]}", "", "| loss | take it for |", "|---|---|", *rows])


def section(entry: Entry, core: type) -> str:
    """Return all about one loss."""
    logged = entry.logged or f"`decode.{default_loss_name(core)}`"
    facts = {
        "Prediction": entry.prediction,
        "Target": entry.target,
        "Options": options(core),
        "In mmseg's log": "" if isinstance(entry.mmseg, Nowhere) else logged,
        "Reference": link_arxiv(entry.reference),
    }
    listed = "\n".join(f"- **{name}:** {value}" for name, value in facts.items() if value)
    formula = f"```math\n{entry.formula}\n```"
    advice = f"**When:** {entry.use}\n\n**When not:** {entry.avoid}"
    parts = [f"### {entry.name}", formula, entry.where, advice, listed, *places(entry)]
    return "\n\n".join(part for part in parts if part)


def options(core: type) -> str:
    """Return the options of a loss with their defaults."""
    shown = []
    for option in inspect.signature(core).parameters.values():
        default = "" if option.default is option.empty else f"={option.default!r}"
        shown.append(f"`{option.name}{default}`")
    return ", ".join(shown)


def places(entry: Entry) -> list[str]:
    """Return the snippets, and one line for the frameworks that lack a place for the same reason."""
    shown: dict[Any, list[str]] = {}
    for framework in ("mmdet", "mmseg", "detectron2"):
        shown.setdefault(getattr(entry, framework), []).append(framework.replace("detectron2", "Detectron2"))
    if entry.torch:
        shown.setdefault(entry.torch, []).append("Your own training loop")
    return [
        f"**{', '.join(names)}:** {text}" if isinstance(text, Nowhere) else f"**{names[0]}**\n\n```python\n{text}\n```"
        for text, names in shown.items()
    ]


def main() -> int:
    """Write or check the page; return the exit code."""
    return write_or_check(PAGE, page, "make_losses.py", __doc__)


if __name__ == "__main__":
    sys.exit(main())
