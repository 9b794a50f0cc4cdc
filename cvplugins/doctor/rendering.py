"""The doctor's findings as one screen of text, or as JSON."""

from __future__ import annotations

import json
import textwrap

from .findings import Finding, Report, Status

__all__ = ["to_json", "to_text"]

COLOURS = {Status.OK: "32", Status.WARNING: "33", Status.ERROR: "31"}
STATUS_WIDTH = max(len(status.value) for status in Status)


def to_text(report: Report, *, width: int = 100, colour: bool = False) -> str:
    """Return aligned columns: status, name, value, and below them the advice behind an arrow.

    Args:
        report: What was found.
        width: Columns of the screen; only a word that is longer goes beyond, such as a path.
        colour: Whether to colour the statuses for a terminal.
    """
    name_width = max((len(finding.name) for finding in report.findings), default=0)
    lines = []
    for section in report.sections:
        lines += ["", section.title]
        for finding in section.findings:
            lines += _lines(finding, name_width, width, colour)
    return "\n".join([*lines[1:], "", _verdict(report, colour)])


def to_json(report: Report) -> str:
    """Return the worst status and all findings, each with its section."""
    findings = [
        {
            "section": section.title,
            "name": finding.name,
            "status": finding.status.value,
            "value": finding.value,
            "advice": finding.advice,
        }
        for section in report.sections
        for finding in section.findings
    ]
    return json.dumps({"status": report.status.value, "findings": findings}, indent=2)


def _lines(finding: Finding, name_width: int, width: int, colour: bool) -> list[str]:
    status = _coloured(finding.status, f"{finding.status.value:<{STATUS_WIDTH}}", colour)
    indent = " " * (2 + STATUS_WIDTH + 2 + name_width + 2)
    first, *rest = _wrapped(finding.value, width - len(indent)) or [""]
    lines = [f"  {status}  {finding.name:<{name_width}}  {first}".rstrip(), *(indent + line for line in rest)]
    if finding.advice:
        indent = " " * (2 + STATUS_WIDTH + 2)
        first, *rest = _wrapped_command(finding.advice, width - len(indent) - 2)
        lines += [f"{indent}→ {first}", *(f"{indent}  {line}" for line in rest)]
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 20), break_long_words=False, break_on_hyphens=False)


def _wrapped_command(text: str, width: int) -> list[str]:
    r"""Break a line as a shell allows it, so that it can be copied.

    >>> _wrapped_command("pip uninstall one && pip install another", 30)
    ['pip uninstall one &&', 'pip install another']
    >>> _wrapped_command("pip install --reinstall one two", 26)
    ['pip install --reinstall \\', 'one two']
    """
    if len(text) <= width:
        return [text]
    commands = [_wrapped(command, width - len(" &&")) for command in text.split(" && ")]
    broken = [[*(f"{line} \\" for line in lines[:-1]), lines[-1]] for lines in commands]
    return [
        line if command is broken[-1] or line is not command[-1] else f"{line} &&"
        for command in broken
        for line in command
    ]


def _verdict(report: Report, colour: bool) -> str:
    counts = [(report.count(status), status) for status in (Status.ERROR, Status.WARNING)]
    parts = [f"{count} {status.value}{'s' if count > 1 else ''}" for count, status in counts if count]
    return _coloured(report.status, ", ".join(parts) or "everything is fine", colour)


def _coloured(status: Status, text: str, colour: bool) -> str:
    return f"\033[{COLOURS[status]}m{text}\033[0m" if colour else text
