"""The command: what it prints, its exit code, and that nothing broken can end it."""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from doctor_facts import facts, raised

from cvplugins.cli.doctor import _config_part, add_arguments, check_config, run
from cvplugins.doctor import Outcome, Report, Section, Status, collect
from cvplugins.doctor.findings import error, ok, warning

ROOT = Path(__file__).parents[2]
# What a torch installs that was made for another machine, and libraries that are broken in each way.
BROKEN = {
    "numpy": "raise ImportError('numpy.core.multiarray failed to import')\n",
    "torch": "import ctypes\nctypes.string_at(0)\n",
    "torchvision": "raise RuntimeError('operator torchvision::nms does not exist')\n",
    "cv2": "import os\nos._exit(9)\n",
    "triton": "import torch\n",
    "mmengine": "raise SystemExit('no')\n",
    "mmcv": "import nothing_of_this_name\n",
    "mmdet": "assert False, 'MMCV==2.2.0 is used but incompatible.'\n",
    "mmseg": "def (\n",
    "detectron2": "import torch\n",
}
RUN = """
import argparse, sys
from cvplugins.cli import doctor
parser = argparse.ArgumentParser()
doctor.add_arguments(parser)
sys.exit(doctor.run(parser.parse_args()))
"""


def doctor(*arguments, path=(), **environment):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))} | environment
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments], env=environment, capture_output=True, text=True, timeout=600, cwd=ROOT
    )


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken")
    for name, text in BROKEN.items():
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(text)
    return folder


def test_every_package_may_be_broken(broken):
    """Oracle: each package's own way to fail; all in one run, which takes seconds, for nothing real is imported."""
    finished = doctor("--json", path=[broken])
    assert (finished.returncode, finished.stderr) == (1, "")
    report = json.loads(finished.stdout)
    assert report["status"] == "error"
    found = {each["name"]: each for each in report["findings"]}
    words = {
        "NumPy": "multiarray failed",
        "torch": "SIGSEGV",
        "torchvision": "torchvision::nms",
        "OpenCV": "exit code 9",
        "mmengine": "SystemExit: no",
        "mmcv": "nothing_of_this_name",
        "mmdet": "MMCV==2.2.0 is used but incompatible",
        "mmseg": "SyntaxError",
        "Detectron2": "needs torch",
    }
    for name, word in words.items():
        assert found[name]["status"] == "error", name
        assert word in found[name]["value"], name
        assert found[name]["advice"], name


def test_text_has_no_colours_in_a_file_and_a_readable_width(broken):
    finished = doctor(path=[broken])
    assert "\033" not in finished.stdout
    assert "→ mend torch first" in finished.stdout
    lines = finished.stdout.splitlines()
    assert lines[-1].split()[1].startswith("error")
    # Paths cannot be broken.
    assert all(len(line) <= 100 or "/" in line for line in lines)


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("finding", "code"), [(ok("a", "b"), 0), (warning("a", "b", "c"), 0), (error("a", "b", "c"), 1)]
)
def test_only_an_error_is_an_exit_code_of_1(finding, code, capsys, monkeypatch):
    monkeypatch.setattr("cvplugins.cli.doctor.examine", lambda parts: Report([Section("x", [finding])]))
    assert run(parsed()) == code
    assert capsys.readouterr().out.startswith("x\n")


def test_colours_are_for_terminals_alone_and_can_be_turned_off(monkeypatch, capsys):
    monkeypatch.setattr("cvplugins.cli.doctor.examine", lambda parts: Report([Section("x", [ok("a", "b")])]))
    printed = []
    for is_terminal, no_colour in ((True, ""), (True, "1"), (False, "")):
        monkeypatch.setenv("NO_COLOR", no_colour)
        monkeypatch.setattr("sys.stdout.isatty", lambda is_terminal=is_terminal: is_terminal)
        run(parsed())
        printed.append("\033" in capsys.readouterr().out)
    assert printed == [True, False, False]


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_a_terminal_that_lacks_the_arrow_gets_the_findings_all_the_same(arguments, monkeypatch):
    """Oracle: Python's own ASCII codec refuses the arrow, and a path whose bytes are no UTF-8."""
    report = Report([Section("x", [warning("a", "/b\udce9", "c")])])
    monkeypatch.setattr("cvplugins.cli.doctor.examine", lambda parts: report)
    for encoding in ("ascii", "utf-8"):
        stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr("sys.stdout", stdout)
        assert run(parsed(*arguments)) == 0
        stdout.seek(0)
        printed = stdout.read()
        if arguments:
            assert json.loads(printed)["findings"][0]["value"] == "/b\udce9"
        else:
            assert "/b?" in printed


def test_what_it_says_while_it_works_is_gone_from_the_line_of_the_result(monkeypatch, capsys):
    monkeypatch.setattr("cvplugins.cli.doctor.examine", lambda parts: Report([Section("x", [ok("a", "b")])]))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    run(parsed())
    assert capsys.readouterr().err == "importing what is installed ...\r\033[K"


def test_a_config_that_is_fine():
    found = check_config(facts(outcomes={"dry run": Outcome("ok")}), "x.py")
    assert (found.status, found.value) == (Status.OK, "x.py, its plugins and its data are fine")


@pytest.mark.parametrize(
    ("outcome", "value", "advice"),
    [
        (raised("config x.py has no train_cfg", "UserError"), "config x.py has no train_cfg", "doctor --config x.py"),
        (raised("'type'", "KeyError"), "KeyError: 'type'", "cvplugins train x.py --dry-run"),
        (raised("torch cannot be imported", needs="torch"), "needs torch", "mend torch first"),
        (Outcome("died", "ended Python by signal SIGKILL"), "SIGKILL", "cvplugins train x.py --dry-run"),
    ],
)
def test_a_config_that_fails(outcome, value, advice):
    found = check_config(facts(outcomes={"dry run": outcome}), "x.py")
    assert (found.status, value in found.value, advice in found.advice) == (Status.ERROR, True, True)


def test_a_dry_run_for_real():
    """What needs no framework comes first, so that this takes no time: the config does not exist."""
    part = _config_part("no_such_config")
    (found,) = part.check(collect([part]))
    assert (found.status, "no_such_config does not exist" in found.value) == (Status.ERROR, True)
    assert "cvplugins doctor --config no_such_config" in found.advice
