"""The screen and the JSON."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from cvplugins.doctor import Report, Section, Status, to_json, to_text
from cvplugins.doctor.findings import error, ok, warning

LONG = "a value of many words " * 9
REPORT = Report(
    [
        Section("First", [ok("short", "fine"), warning("a longer name", LONG.strip(), "do this: pip install x")]),
        Section("Second", [error("third", "broken", "pip install " + "package " * 14)]),
    ]
)


def test_the_screen():
    report = Report([Section("Part", [ok("cores", "2"), error("disk", "full", "free some space")])])
    assert to_text(report) == "\n".join(
        [
            "Part",
            "  ok       cores  2",
            "  error    disk   full",
            "           → free some space",
            "",
            "1 error",
        ]
    )


@pytest.mark.parametrize("width", [60, 80, 100])
def test_lines_are_no_wider_than_the_screen(width):
    assert max(map(len, to_text(REPORT, width=width).splitlines())) <= width


def test_values_begin_in_one_column():
    lines = to_text(REPORT).splitlines()
    assert {line.index(word) for line, word in zip(lines[1:3], ("fine", "a value"), strict=True)} == {26}


def test_nothing_is_lost_where_lines_are_broken():
    text = " ".join(to_text(REPORT, width=60).replace(" \\\n", "\n").split())
    assert LONG.strip() in text
    assert ("pip install " + "package " * 14).strip() in text


def test_a_broken_command_is_still_one_for_a_shell():
    """Oracle: bash itself."""
    advice = "echo one && " + "echo " + "word " * 30 + "&& echo three"
    report = Report([Section("Part", [error("x", "y", advice)])])
    lines = to_text(report, width=60).splitlines()
    start = next(index for index, line in enumerate(lines) if "→" in line)
    script = "\n".join(lines[start:-2]).replace("→", "")
    printed = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["one", *["word"] * 30, "three"]


def test_colours_add_nothing_but_codes():
    coloured = to_text(REPORT, colour=True)
    assert "\033[31merror" in coloured
    assert re.sub(r"\033\[\d+m", "", coloured) == to_text(REPORT)
    assert "\033" not in to_text(REPORT)


def test_json_has_all():
    loaded = json.loads(to_json(REPORT))
    assert loaded["status"] == "error"
    assert loaded["findings"][2] == {
        "section": "Second",
        "name": "third",
        "status": "error",
        "value": "broken",
        "advice": REPORT.findings[2].advice,
    }
    assert len(loaded["findings"]) == 3


def test_the_verdict_is_the_worst():
    assert REPORT.status is Status.ERROR
    assert Report([Section("", [ok("a", ""), warning("b", "", "c")])]).status is Status.WARNING
    assert Report([Section("", [ok("a", "")])]).status is Status.OK
    assert to_text(Report([Section("x", [ok("a", "")])])).endswith("everything is fine")
    assert to_text(REPORT).endswith("1 error, 1 warning")
