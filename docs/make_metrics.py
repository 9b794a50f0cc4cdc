"""Write docs/metrics.md, a section for each registered metric; with --check only say whether it is up to date."""

from __future__ import annotations

import inspect
import sys
from dataclasses import fields
from pathlib import Path

from generated import link_arxiv, write_or_check
from metric_entries import ENTRIES, NUMBERS_OF, Entry

from cvplugins.metrics import DETECTION_RULES
from cvplugins.openmmlab.metrics import PluginMetric
from cvplugins.registry import METRICS

FOLDER = Path(__file__).parent
PAGE = FOLDER / "metrics.md"
INTRODUCTION = FOLDER / "metrics_introduction.md"
HEADER = "<!-- Written by docs/make_metrics.py from metrics_introduction.md, metric_entries.py and the registry. -->"
COMMON = set(inspect.signature(PluginMetric).parameters)


def page() -> str:
    """Return the whole page.

    Raises:
        ValueError: A registered metric has no entry, or an entry no metric.
    """
    names = METRICS.names()
    for missing, where in ((set(names) - set(ENTRIES), "an entry"), (set(ENTRIES) - set(names), "a metric")):
        if missing:
            raise ValueError(f"docs/metric_entries.py: {', '.join(sorted(missing))} lacks {where}")
    overview = [f"| [`{entry.name}`](#{entry.name.lower()}) | {entry.task} |" for entry in ENTRIES.values()]
    parts = [
        HEADER,
        INTRODUCTION.read_text(encoding="utf-8").strip(),
        "\n".join(["## All metrics", "", "| metric | evaluates |", "|---|---|", *overview]),
        *(section(entry) for entry in ENTRIES.values()),
    ]
    return "\n\n".join(parts) + "\n"


def section(entry: Entry) -> str:
    """Return all about one metric."""
    measures = [f"| `{name}` | {meaning} |" for name, meaning in entry.measures.items()]
    facts = {
        "Options": options(METRICS.get(entry.name)),
        "Files": entry.files,
        "Reference": link_arxiv(entry.reference),
    }
    parts = [
        f"## {entry.name}",
        f"Evaluates {entry.task}.",
        "\n".join(["| in the log | meaning |", "|---|---|", *measures]) if measures else "",
        f"The numbers are those of [`{entry.measures_of}`](#{entry.measures_of.lower()})." if entry.measures_of else "",
        "\n".join(f"- {convention}" for convention in entry.conventions),
        rules() if entry.name == "DetectionMetric" else "",
        differences(entry),
        f"```python\n{entry.config}\n```",
        f"In a loop of your own:\n\n```python\n{entry.call}\n```",
        "\n".join(f"- **{name}:** {value}" for name, value in facts.items() if value),
    ]
    return "\n\n".join(part for part in parts if part)


def options(adapter: type) -> str:
    """Return the options of a metric with their defaults, but for those that all have."""
    shown = []
    for option in inspect.signature(adapter).parameters.values():
        if option.name not in COMMON and option.kind is not option.VAR_KEYWORD:
            default = "" if option.default is option.empty else f"={option.default!r}"
            shown.append(f"`{option.name}{default}`")
    return ", ".join(shown)


def rules() -> str:
    """Return the table of the rules of detections."""
    columns = [each.name for each in fields(next(iter(DETECTION_RULES.values()))) if each.name != "name"]
    lines = ["Rules, each with its options (all are options of a rule of your own):", ""]
    lines.append(f"| option | {' | '.join(f'`{name}`' for name in DETECTION_RULES)} |")
    lines.append("|---|" + "---|" * len(DETECTION_RULES))
    for column in columns:
        values = (_short(getattr(rule, column)) for rule in DETECTION_RULES.values())
        lines.append(f"| `{column}` | {' | '.join(values)} |")
    lines.append(f"| gives the number of | {' | '.join(NUMBERS_OF[name][0] for name in DETECTION_RULES)} |")
    lines.append(f"| within | {' | '.join(NUMBERS_OF[name][1] for name in DETECTION_RULES)} |")
    return "\n".join(lines)


def differences(entry: Entry) -> str:
    """Return the table of what frameworks give, or nothing."""
    if not entry.differences:
        return ""
    rows = [f"| {framework} | {gives} | {here} |" for framework, gives, here in entry.differences]
    return "\n".join(["| elsewhere | gives | here |", "|---|---|---|", *rows])


def _short(value: object) -> str:
    if isinstance(value, tuple) and len(value) > 3:
        return f"{value[0]:g} to {value[-1]:g}"
    if isinstance(value, tuple):
        return ", ".join(f"{each:g}" for each in value) or "all"
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def main() -> int:
    """Write or check the page; return the exit code."""
    return write_or_check(PAGE, page, "make_metrics.py", __doc__)


if __name__ == "__main__":
    sys.exit(main())
