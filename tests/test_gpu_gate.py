"""The gate for machines with a GPU. Oracle: hand calculation; what a script written here does."""

import json
import sys
import time
import zipfile
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks.gpu_gate import running
from benchmarks.gpu_gate.__main__ import main
from benchmarks.gpu_gate.parts import BENCHMARKS, Benchmark, gpu_test_files
from benchmarks.gpu_gate.report import Deadline, Outcome, TestCounts, exit_code, measured_lines, read_junit, table
from benchmarks.gpu_gate.wheels import (
    HEAVY,
    check_size,
    distribution,
    excluded,
    pip_platforms,
    read_names,
    read_pins,
    uv_platform,
)
from cvplugins.errors import UserError

LISTED = {
    "freeze": "torch==2.11.0+cu130\nPyYAML==6.0\nonedl_mmcv @ file:///tmp/mmcv",
    "list": "Package    Version\n---------- -------\ntorch      2.11.0\nPyYAML     6.0\nonedl_mmcv 2.3.6",
    "names": "torch, PyYAML,onedl_mmcv",
}


@pytest.mark.parametrize("text", LISTED.values(), ids=LISTED)
def test_packages_are_read_from_what_pip_prints(text):
    assert read_names(text) == {"torch", "pyyaml", "onedl-mmcv"}


def test_what_is_there_does_not_travel():
    nothing_more = excluded(frozenset(), everything=False)
    assert {"torch", "numpy", "cvplugins", "matplotlib", "onedl-mmdetection"} <= nothing_more
    assert not {"scipy", "onedl-mmcv", "onedl-mmengine", "onedl-mmsegmentation"} & nothing_more
    # mmdet travels to where the large packages are, which then stay at home.
    with_heavy = excluded(frozenset({"scipy", *HEAVY}), everything=False)
    assert {"scipy", *HEAVY} <= with_heavy
    assert not {"onedl-mmdetection", "imaug"} & with_heavy
    assert "onedl-mmdetection" in excluded(frozenset({"matplotlib"}), everything=False)
    assert not (HEAVY | {"onedl-mmdetection"}) & excluded(frozenset(), everything=True)


def test_pins_are_read_from_uv():
    assert read_pins("# by uv\nPyYAML==6.0.4\n    # via mmcv\nscipy==1.18.1 ; python_version > '3'\n") == {
        "pyyaml": "6.0.4",
        "scipy": "1.18.1",
    }


def test_platforms():
    tags = pip_platforms("manylinux_2_26_aarch64")[1::2]
    assert tags == [f"manylinux{end}_aarch64" for end in ("_2_26", "_2_24", "_2_17", "2014")]
    assert uv_platform("manylinux_2_26_aarch64") == "aarch64-manylinux_2_26"
    assert uv_platform("windows") == "windows"


def test_too_much_names_the_largest():
    sizes = {"scipy": 35_300_000, "addict": 4_000, "matplotlib": 9_900_000, "regex": 800_000, "mmseg": 2_000_000}
    assert check_size(sizes, 48.1) == pytest.approx(48.004)
    with pytest.raises(
        UserError, match=r"48\.0 MB in all, more than 48 MB; .*scipy \(35\.3 MB\), matplotlib .*, mmseg"
    ):
        check_size(sizes, 48)


def test_the_machines_own_packages_are_not_installed_again():
    names = ["cvplugins", "cvplugins_mmcv_ops", "onedl_mmcv", "onedl_mmengine", "scipy", "PyYAML"]
    wheels = [Path(f"{name}-1-py3-none-any.whl") for name in names]
    there = {"scipy", "pyyaml", "onedl-mmcv", "cvplugins"}
    chosen = [distribution(wheel) for wheel in running.to_install(wheels, there)]
    assert chosen == ["cvplugins", "cvplugins-mmcv-ops", "onedl-mmcv", "onedl-mmengine"]


@pytest.mark.parametrize("change", ["text", "more"])
def test_wheels_of_another_checkout_are_refused(tmp_path, change):
    package = tmp_path / "cvplugins"
    package.mkdir()
    for name in ("a.py", "b.py"):
        (package / name).write_text(name)
    wheel = tmp_path / "cvplugins-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in package.iterdir():
            archive.write(file, f"cvplugins/{file.name}")
    running.check_same_source(wheel, tmp_path)
    (package / {"text": "b.py", "more": "c.py"}[change]).write_text("other")
    with pytest.raises(UserError, match=r"cvplugins/[bc]\.py differs; run `collect` again"):
        running.check_same_source(wheel, tmp_path)


def test_a_part_gets_its_time_or_is_left_out():
    now = [100.0]
    deadline = Deadline(60, clock=lambda: now[0])
    assert deadline.grant(10, 25) == 25
    now[0] += 45
    assert deadline.grant(10, 25) == 15
    assert deadline.grant(15.1, 25) is None
    now[0] += 45
    assert deadline.left() == 0


def test_pytests_file_is_counted():
    xml = """<testsuites><testsuite><testcase name="a"/><testcase name="b"><failure message="x"/></testcase>
    <testcase name="c"><error/></testcase><testcase name="d"><skipped message="one GPU"/></testcase>
    <testcase name="e"><skipped message="one GPU"/></testcase></testsuite></testsuites>"""
    counts = read_junit(xml)
    assert counts == TestCounts(1, ("b", "c"), ("one GPU", "one GPU"))
    assert str(counts) == "1 passed, 2 failed (b, c), 2 skipped (one GPU)"


def test_measurements_are_found_in_what_a_benchmark_prints():
    lines = [
        "cuda, torch 2.11",
        "",
        "          ms  times",
        "GIoU 20k pairs    ours   1.29    1.00",
        " 512  Triton  0.5",
    ]
    expected = (("", "ms times"), ("GIoU 20k pairs", "ours 1.29 1.00"), ("512", "Triton 0.5"))
    assert measured_lines("\n".join([*lines, "no values  here"])) == expected


def test_the_table_has_a_line_for_each_part_and_measurement():
    outcomes = [
        Outcome("tests", "pytest -m gpu", "passed", "7 passed", 12.34),
        Outcome("losses", "against peers", "passed", "1 line", 3, (("GIoU", "1.29 ms"),)),
    ]
    assert table(outcomes).splitlines() == [
        "part    measured       result            seconds",
        "tests   pytest -m gpu  passed: 7 passed     12.3",
        "losses  against peers  passed: 1 line        3.0",
        "        GIoU           1.29 ms",
    ]


def test_exit_code():
    passed, failed, left_out = (Outcome("a", "b", state, "c") for state in ("passed", "FAILED", "left out"))
    assert exit_code([passed, left_out], gpu_tests=3) == 0
    assert exit_code([passed, failed], gpu_tests=3) == 1
    assert exit_code([passed, left_out], gpu_tests=0) == 1  # nothing ran on a GPU


def test_the_files_with_gpu_tests_are_found(root):
    found = {file.relative_to(root).as_posix() for file in gpu_test_files(root)}
    assert {"tests/losses/test_distance.py", "tests/test_nccl.py"} <= found
    assert "tests/test_distributed.py" not in found


def test_every_benchmark_has_an_end_and_fits(root):
    names = [each.name for each in BENCHMARKS]
    assert len(set(names)) == len(names)
    assert all(0 < each.least < each.most for each in BENCHMARKS)
    others = [each for each in BENCHMARKS if each.name != "deformable attention"]
    assert all(each.exists(root / "benchmarks") for each in others)


SCRIPTS = {
    "ok": "print('matrix product  1.5 ms')",
    "broken": "raise ValueError('no kernel image')",
    "endless": "import time\nprint('before   1 ms', flush=True)\ntime.sleep(60)",
}


@pytest.fixture
def gate(tmp_path):
    """A gate over scripts of this file, on a machine that says it has a GPU."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for name, code in SCRIPTS.items():
        (folder / f"{name}.py").write_text(code)
    return running.Gate(tmp_path, tmp_path, Deadline(100), {}, {"gpus": ["a GPU"]})


def benchmark(name, most=50.0, modules=()):
    return Benchmark(name, "something", (f"{name}.py",), most, 1, modules)


def test_a_benchmark_passes_fails_or_runs_out_of_time(gate):
    passed, failed, ended = (
        running._measure(gate, each) for each in (benchmark("ok"), benchmark("broken"), benchmark("endless", 1.5))
    )
    assert (passed.state, passed.lines) == ("passed", (("matrix product", "1.5 ms"),))
    assert failed.state == "FAILED"
    assert "exit code 1: ValueError: no kernel image" in failed.result
    assert ended.state == "FAILED"
    assert "ended after" in ended.result
    assert ended.lines == (("before", "1 ms"),)
    assert 1.5 <= ended.seconds < 10
    assert "no kernel image" in (gate.out / "log.txt").read_text()


def test_a_benchmark_that_cannot_run_is_left_out_and_says_why(gate):
    no_module = running._measure(gate, benchmark("ok", modules=("no_such_module",)))
    no_script = running._measure(gate, benchmark("unwritten"))
    gate.deadline = Deadline(0.5)
    no_time = running._measure(gate, benchmark("ok"))
    gate.machine = {"gpus": []}
    no_gpu = running._measure(gate, benchmark("ok"))
    outcomes = (no_module, no_script, no_time, no_gpu)
    assert {each.state for each in outcomes} == {"left out"}
    for outcome, reason in zip(outcomes, ("No module named", "not in this", "s were left", "no GPU"), strict=True):
        assert reason in outcome.result


def test_what_a_process_has_started_ends_with_it(gate):
    code = "import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', sys.argv[1]])\ntime.sleep(60)"
    file = gate.out / "alive"
    child = (
        f"import time, pathlib\nfor i in range(600):\n pathlib.Path({str(file)!r}).write_text(str(i))\n time.sleep(.05)"
    )
    assert gate.call([sys.executable, "-c", code, child], 2).code is None
    last = file.read_text()
    time.sleep(0.3)
    assert file.read_text() == last


@pytest.mark.parametrize("gpus", [0, 1])
def test_two_ranks_need_two_gpus(gate, gpus):
    gate.machine = {"gpus": ["a GPU"] * gpus}
    running._test_nccl(gate)
    assert gate.outcomes[0].state == "left out"
    assert gate.outcomes[0].result == ("no GPU", "1 GPU: NCCL refuses two ranks on one device")[gpus]
    report = json.loads((gate.out / "report.json").read_text())
    assert report["outcomes"][0]["part"] == "NCCL"


@pytest.mark.parametrize(
    ("test", "gpus", "state", "count"),
    [
        ("def test_a(): pass", 1, "passed", 1),
        ("def test_a(): pass", 0, "left out", 0),
        ("def test_a(): assert False", 1, "FAILED", 0),
        ("def test_a(): pytest.skip('not now')", 1, "FAILED", 0),
    ],
)
def test_gpu_tests_are_counted(gate, test, gpus, state, count):
    folder = gate.root / "tests"
    folder.mkdir()
    (gate.root / "pytest.ini").write_text("[pytest]\nmarkers =\n gpu:\n distributed:\n")
    (folder / "test_one.py").write_text(f"import pytest\n@pytest.mark.gpu\n{test}\ndef test_other(): assert False\n")
    (folder / "test_two.py").write_text("import no_such_module\n")  # has none: it is not even imported
    gate.machine = {"gpus": ["a GPU"] * gpus}
    running._test(gate)
    assert (gate.outcomes[0].state, gate.gpu_tests) == (state, count)


def test_mistakes_are_one_line(tmp_path, capsys):
    empty = str(tmp_path)
    for arguments, message in (
        (["run", "--wheels", empty], "holds no wheels; fill it with the command `collect`"),
        (["collect", "--wheels", empty, "--present", f"{empty}/none"], "none is no file; write the output of `pip"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1
    with pytest.raises(UserError, match=r"--detectron2 .* is no folder; name a checkout"):
        running._environment(empty, Namespace(detectron2=Path(empty, "none"), mask2former=None))
