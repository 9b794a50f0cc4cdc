"""Write docs/operators.md from docs/operators; with --check only say whether it is up to date."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from generated import write_or_check

FOLDER = Path(__file__).parent
PAGE = FOLDER / "operators.md"
PARTS = FOLDER / "operators"
HEADER = "<!-- Written by docs/make_operators.py from the files in docs/operators. -->"
REMARK = (
    "A family that was built but not run yet is marked so. A model that stopped is listed below with its error: most "
    "want other inputs than the random ones here, a package, a download or more time. No error names a missing "
    "operator, but only a family that trains and predicts shows that its operators work."
)
NAMES = {"mmdet": "MMDetection", "mmseg": "MMSegmentation"}


def page() -> str:
    """Return the whole page."""
    survey = json.loads((PARTS / "zoo.json").read_text(encoding="utf-8"))
    versions = ", ".join(f"{name} {number}" for name, number in survey["versions"].items())
    parts = [HEADER, (PARTS / "introduction.md").read_text(encoding="utf-8").strip(), "## The zoos", _totals(survey)]
    parts.append(f"Versions: {versions}. {REMARK}")
    for zoo, name in NAMES.items():
        parts += [f"### {name}", _table(survey["build"][zoo], survey["run"][zoo])]
    parts += ["### What does not run, and why", _failures(survey)]
    return "\n\n".join(parts) + "\n"


def _totals(survey: dict[str, Any]) -> str:
    lines = []
    for zoo, name in NAMES.items():
        outcomes = [outcome for family in survey["build"][zoo].values() for outcome in family.values()]
        families = [family for family, configs in survey["build"][zoo].items() if configs]
        run = [family for family in survey["run"][zoo].values() if "error" not in family]
        lines.append(
            f"- **{name}**: {sum(each == 'built' for each in outcomes)} of {len(outcomes)} configs build; "
            f"{len(run)} of {len(families)} families train and predict."
        )
    return "\n".join(lines)


def _table(built: dict[str, dict[str, Any]], run: dict[str, dict[str, Any]]) -> str:
    rows = [
        "| family | configs that build | model that was run | operators it asks for | result |",
        "|---|---|---|---|---|",
    ]
    for family, configs in built.items():
        if not configs:
            continue
        good = sum(outcome == "built" for outcome in configs.values())
        found = run.get(family, {})
        operators = ", ".join(f"`{name}`" for name in found.get("operators", [])) or "-"
        model = f"`{Path(found['config']).stem}`" if found else "-"
        result = "trains and predicts"
        if not found:
            result = "not run" if good else "see below"
        elif "error" in found:
            result = "see below"
        rows.append(f"| {family} | {good} of {len(configs)} | {model} | {operators} | {result} |")
    return "\n".join(rows)


def _failures(survey: dict[str, Any]) -> str:
    rows = ["| zoo | family | configs | error |", "|---|---|---|---|"]
    for zoo, name in NAMES.items():
        for family, configs in survey["build"][zoo].items():
            errors: dict[str, int] = {}
            for outcome in configs.values():
                if outcome != "built":
                    errors[outcome["error"]] = errors.get(outcome["error"], 0) + 1
            rows += [f"| {name} | {family} | {count} | {_cell(error)} |" for error, count in errors.items()]
            if "error" in (found := survey["run"][zoo].get(family, {})):
                rows.append(f"| {name} | {family} | `{Path(found['config']).stem}` | {_cell(found['error'])} |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> int:
    """Write or check the page."""
    return write_or_check(PAGE, page, "make_operators.py", __doc__)


if __name__ == "__main__":
    sys.exit(main())
