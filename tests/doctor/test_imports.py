"""Packages that are broken on purpose, in a folder on the path, are really imported, in another process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cvplugins.doctor import Probe, read_distributions, try_imports

PACKAGES = {
    "fine": "import os\ndef process():\n    print('noise')\n    return {'process': os.getpid()}\n",
    "also_fine": "import fine\n",
    # What torchvision says where its operators were compiled for another torch.
    "torchvision": "raise RuntimeError('operator torchvision::nms does not exist')\n",
    "needs_torchvision": "import torchvision\n",
    "segfault": "import ctypes\nctypes.string_at(0)\n",
    "needs_segfault": "import segfault\n",
    # Catastrophic backtracking keeps the interpreter's lock, so that no Python thread could end it.
    "hangs": "import re\nre.match(r'(a+)+$', 'a' * 64 + 'b')\n",
    "leaves": "import os\nos._exit(7)\n",
    "exits": "import sys\nsys.exit('no licence')\n",
    "lacks": "import a_package_that_is_nowhere\n",
    "asks": "def question(word):\n    return {'word': word}\ndef crash():\n    import segfault\n",
    "half": "import fine\n",
    "slow": "import time\nfor number in range(9):\n    time.sleep(0.5)\n    __import__(f'slow.part{number}')\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    for name, text in PACKAGES.items():
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(text)
    for number in range(9):
        (folder / "slow" / f"part{number}.py").touch()
    return folder


@pytest.fixture(scope="module")
def outcomes(folder):
    names = ("fine", "torchvision", "needs_torchvision", "segfault", "needs_segfault", "hangs", "leaves", "exits")
    probes = [Probe(name, (name,), limit=3) for name in (*names, "lacks", "a_package_that_is_nowhere", "also_fine")]
    probes.insert(5, Probe("before", ("fine",), "fine:process"))
    probes += [
        Probe("after", ("fine",), "fine:process"),
        Probe("question", (), "asks:question", ("yes",)),
        Probe("question crashes", ("half",), "asks:crash"),
        Probe("half again", ("half",)),
    ]
    return try_imports(probes, path=[str(folder), *sys.path])


def test_a_package_that_is_fine(outcomes):
    assert outcomes["fine"].state == outcomes["also_fine"].state == "ok"
    assert outcomes["question"].answers == {"word": "yes"}


def test_an_error_is_told_with_its_type(outcomes):
    found = outcomes["torchvision"]
    assert (found.state, found.type, found.error) == (
        "raised",
        "RuntimeError",
        "operator torchvision::nms does not exist",
    )


def test_what_imports_a_broken_package_names_it(outcomes):
    # A second try would end in another error, as torchvision's does, which registers its namespace once only.
    assert outcomes["needs_torchvision"].needs == "torchvision"
    assert outcomes["needs_segfault"].needs == "segfault"


def test_a_segmentation_fault_names_signal_and_place(outcomes):
    found = outcomes["segfault"]
    assert found.state == "died"
    assert "SIGSEGV" in found.error
    assert "ctypes/__init__.py" in found.error  # whose string_at it calls


def test_a_hang_ends_at_its_limit_and_names_the_place(outcomes):
    found = outcomes["hangs"]
    assert (found.state, found.seconds) == ("hung", 3)
    assert found.error.startswith("no progress for 3 s, in ")
    assert "re/__init__.py" in found.error or "re.py" in found.error  # Python 3.10 has it in one file


def test_a_slow_machine_is_not_taken_for_a_hang(folder):
    """4.5 seconds in all, with a limit of 2 for each step of half a second."""
    outcome = try_imports([Probe("slow", ("slow",), limit=2)], path=[str(folder), *sys.path])["slow"]
    assert outcome.state == "ok"
    assert outcome.seconds > 4


def test_ways_to_leave_python(outcomes):
    assert (outcomes["leaves"].state, "exit code 7" in outcomes["leaves"].error) == ("died", True)
    assert (outcomes["exits"].state, outcomes["exits"].error) == ("raised", "no licence")


def test_absent_packages(outcomes):
    assert outcomes["a_package_that_is_nowhere"].state == "missing"
    assert (outcomes["lacks"].state, outcomes["lacks"].missing) == ("raised", "a_package_that_is_nowhere")


def test_one_process_serves_until_one_dies(outcomes, folder):
    probes = [Probe(name, ("fine",), "fine:process") for name in "ab"]
    together = try_imports(probes, path=[str(folder), *sys.path])
    assert together["a"].answers == together["b"].answers
    assert outcomes["before"].answers != outcomes["after"].answers


def test_a_question_that_crashes_does_not_break_the_package(outcomes):
    assert outcomes["question crashes"].needs == "segfault"  # known by now, so that it is not tried again
    assert outcomes["half again"].state == "ok"


def test_a_crash_in_a_question_leaves_the_package_usable(folder):
    probes = [Probe("asked", ("half",), "asks:crash"), Probe("again", ("half",))]
    outcomes = try_imports(probes, path=[str(folder), *sys.path])
    assert (outcomes["asked"].state, outcomes["asked"].module) == ("died", "")
    assert outcomes["again"].state == "ok"


def test_nothing_to_try():
    assert try_imports([]) == {}


def test_distributions_are_read_from_files_alone(tmp_path):
    """Oracle: the folders that an installer would have written, by hand."""
    owner, adder, editable, empty = (tmp_path / f"{name}-1.0.dist-info" for name in ("A_b", "adder", "edit", "left"))
    for folder in (owner, adder, editable, empty):
        folder.mkdir()
    (owner / "METADATA").write_text("Name: A_b\nVersion: 1.5\nRequires-Dist: torch (==2.12.0)\n")
    (owner / "RECORD").write_text("pack/__init__.py,,\npack/deep/__init__.py,,\nA_b-1.0.dist-info/METADATA,,\n")
    # A module in another one's package: top_level.txt names the package, but it does not own it.
    (adder / "METADATA").write_text("Name: adder\nVersion: 0.1\n")
    (adder / "RECORD").write_text("pack/_more.py,,\n")
    (adder / "top_level.txt").write_text("pack\n")
    # An editable installation records no file of its package.
    (editable / "METADATA").write_text("Name: edit\nVersion: 2.0\n")
    (editable / "RECORD").write_text("__editable___edit_finder.py,,\n")
    (editable / "top_level.txt").write_text("edited\n")
    found = read_distributions([str(tmp_path)])
    assert {name: each.packages for name, each in found.items()} == {"a-b": ("pack",), "adder": (), "edit": ("edited",)}
    assert found["a-b"].version == "1.5"
    assert found["a-b"].requirements[0].specifiers == "==2.12.0"


def test_importing_the_command_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'detectron2'}"
    code = f"import sys, cvplugins.cli.doctor; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_the_end_comes_from_a_thread_of_a_package_that_is_fine(tmp_path):
    """Whoever is imported at that moment is blamed; all that were not tried yet still are."""
    (tmp_path / "leaves_later.py").write_text("import os, threading\nthreading.Timer(0.5, os._exit, [5]).start()\n")
    (tmp_path / "waits.py").write_text("import time\ntime.sleep(2)\n")
    probes = [Probe("a", ("leaves_later",)), Probe("b", ("waits",)), Probe("c", ("json",))]
    outcomes = try_imports(probes, path=[str(tmp_path), *sys.path])
    assert [outcomes[name].state for name in "abc"] == ["ok", "died", "ok"]
