"""The skips that a run may have. Oracle: runs of pytest on small files, whose exit code and last lines are known."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import skips

ALLOWED = "import pytest\n@pytest.mark.skip(reason='no real VOC photographs')\ndef test_photographs(): pass\n"
MARKED = "import pytest\n@pytest.mark.{0}\ndef test_{0}(): pass\n"
EXPECTED_FAILURE = "import pytest\n@pytest.mark.xfail\ndef test_wrong(): assert False\n"
IN_A_TEST = "import pytest\ndef test_peer(): pytest.importorskip('no_such_peer')\n"
WHOLE_MODULE = "import pytest\npytest.importorskip('no_such_peer')\ndef test_peer(): pass\n"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run pytest on files of these contents; return the exit code and the output."""
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    markers = "".join(f"    {part}\n" for part in skips.PARTS)
    Path(tmp_path, "pytest.ini").write_text(
        f"[pytest]\npythonpath = {Path(skips.__file__).parent}\nmarkers =\n{markers}"
    )
    Path(tmp_path, "conftest.py").write_text("from skips import count_tests as pytest_configure, pytest_addoption\n")

    def _run(contents, *options):
        for index, content in enumerate(contents):
            Path(tmp_path, f"test_{index}.py").write_text(content)
        command = [sys.executable, "-m", "pytest", "-q", *options]
        finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        return finished.returncode, finished.stdout

    return _run


def test_allowed_skips_are_counted_and_pass(run):
    code, output = run([ALLOWED, ALLOWED, MARKED.format("detectron2"), EXPECTED_FAILURE], "--strict-skips")
    assert code == 0
    summary = output[output.index("what was tested") :].splitlines()
    assert summary[1:3] == [
        "tests passed of openmmlab: NOT TESTED, detectron2: 1, mask2former: NOT TESTED, gpu: NOT TESTED",
        "skipped, as allowed: no real data 2",
    ]
    assert re.match(r"1 passed, 2 skipped, 1 xfailed in ", summary[3])
    assert len(summary) == 4


@pytest.mark.parametrize("missing", [IN_A_TEST, WHOLE_MODULE], ids=["in a test", "a whole module"])
def test_a_missing_package_fails_the_run(run, missing):
    code, output = run([ALLOWED, MARKED.format("openmmlab"), missing], "--strict-skips")
    assert code == 1
    assert "skipped, as allowed: no real data 1\n" in output
    assert re.search(r"skipped, NOT ALLOWED: test_2.py.*: could not import 'no_such_peer'", output)
    code, output = run([missing])
    assert code == 0
    assert "NOT ALLOWED: test_" in output


def test_over_the_processes_of_xdist(run):
    contents = [ALLOWED, IN_A_TEST, WHOLE_MODULE, MARKED.format("gpu")]
    code, output = run(contents, "--strict-skips", "-p", "xdist", "-n", "2")
    assert code == 1
    assert "mask2former: NOT TESTED, gpu: 1\nskipped, as allowed: no real data 1\n" in output
    assert output.count("NOT ALLOWED") == 1
    assert re.search(r"NOT ALLOWED: test_[12].py.* and 1 more: could not import 'no_such_peer'", output)


@pytest.mark.parametrize("is_there", [True, False])
def test_what_is_there_may_not_be_skipped(monkeypatch, is_there):
    """Such as Detectron2 where it is on the path, but broken."""
    monkeypatch.setitem(skips.ALLOWED, "no GPU", skips.Allowed("no CUDA device", lambda: is_there))
    assert skips.allowed_name("no CUDA device") == (None if is_there else "no GPU")
