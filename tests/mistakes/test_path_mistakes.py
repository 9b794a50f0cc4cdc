"""Paths that cannot be read or written: one line before any work."""

import json
import os
import subprocess
import sys

import pytest
from devkits import first_id, small_devkit, split_file

from cvplugins.cli import run_command

CONFIG = "configs/voc_faster_rcnn_sample.py"
LONG = "a" * 300
HEAVY = ("torch", "mmengine", "mmdet", "detectron2")


@pytest.fixture
def answer(root, monkeypatch, capsys):
    """Run a command in this process; return its one error line."""
    monkeypatch.chdir(root)

    def _answer(name, *arguments):
        assert run_command(name, list(map(str, arguments)), prog=name) == 2
        printed = capsys.readouterr().err
        assert printed.startswith("error: ")
        assert printed.count("\n") == 1
        return printed

    return _answer


@pytest.fixture
def pipe(tmp_path):
    path = tmp_path / "pipe.py"
    os.mkfifo(path)
    return path


def test_what_is_no_regular_file_is_not_opened(answer, tmp_path, pipe):
    """Opening a pipe waits for ever for somebody who writes."""
    assert "is no regular file" in answer("train", pipe)
    assert f"checkpoint {pipe} is no regular file" in answer("test", CONFIG, pipe)
    assert f"checkpoint {pipe} is no regular file" in answer("train", CONFIG, "--resume", pipe)
    assert f"replay file {pipe} is no regular file" in answer("replay", pipe)
    assert f"{pipe} is no regular file" in answer("evaluate", pipe, "--annotations", tmp_path)
    for name, text in (("own.py", f"_base_ = ['{pipe}']\n"), ("own.yaml", f"_BASE_: {pipe}\n")):
        (tmp_path / name).write_text(text)
        assert f"its base {pipe} is no regular file" in answer("train", tmp_path / name)


def test_a_missing_base(answer, tmp_path):
    (tmp_path / "own.py").write_text("_base_ = './none.py'\n")
    assert f"its base {tmp_path / 'none.py'} does not exist" in answer("train", tmp_path / "own.py")


@pytest.mark.parametrize(
    ("folder", "said"),
    [("{file}", "is a file, not a folder"), ("{file}/below", "is a file, not a folder"), (LONG, "too long")],
)
def test_a_folder_that_nothing_can_be_written_to(answer, tmp_path, folder, said):
    file = tmp_path / "file"
    file.write_text("kept")
    folder = folder.format(file=file)
    assert said in answer("train", CONFIG, "--work-dir", folder)
    assert said in answer("test", CONFIG, file, "--show-dir", folder)
    assert said in answer("test", CONFIG, file, "--label-dir", folder)
    assert said in answer("test", CONFIG, file, "--out", f"{folder}/metrics.json")
    assert said in answer("evaluate", file, "--annotations", file, "--out-dir", folder)
    assert file.read_text() == "kept"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc, where nobody can make a folder")
def test_a_place_that_is_read_only_whoever_asks(answer, tmp_path):
    (tmp_path / "file").touch()
    assert "--work-dir /proc/run: nothing can be written to /proc" in answer("train", CONFIG, "--work-dir", "/proc/run")
    assert "--out /proc/x.json" in answer("test", CONFIG, tmp_path / "file", "--out", "/proc/x.json")


def test_names_that_are_none(answer):
    assert "does not exist" in answer("train", LONG)
    assert "does not exist" in answer("train", f"{LONG}.py")
    assert "is no address" in answer("train", CONFIG, "--resume", "http://[1/epoch_1.pth")
    assert "is no address" in answer("train", CONFIG, "--resume", "http:///epoch_1.pth")
    assert "names no file" in answer("train", CONFIG, "--resume", "https://host/")


@pytest.mark.parametrize("seed", ["-1", str(2**32)])
def test_a_seed_out_of_range(answer, seed):
    assert f"--seed {seed}: expected a number from 0 to 4294967295" in answer("train", CONFIG, "--seed", seed)
    assert f"--seed {seed}" in answer("sample", "voc", "nowhere", "--seed", seed)


@pytest.mark.openmmlab
def test_data_of_our_own_configs_is_looked_for_before_a_framework_is_imported(root, sample, tmp_path):
    """The oracle is what was broken, the modules that were imported, and the processor's time."""
    missing = tmp_path / "nothing"
    devkits = [small_devkit(sample, tmp_path / name) for name in ("xml", "list")]
    xml = devkits[0] / "VOC2007" / "Annotations" / f"{first_id(devkits[0])}.xml"
    xml.write_text(xml.read_text().replace("</annotation>", ""))
    with split_file(devkits[1], "VOC2007", "trainval").open("a") as file:
        file.write(f"{first_id(devkits[1])}\n")
    cases = [
        (CONFIG, missing, f"{missing}/VOC2007 does not exist"),
        ("ade20k_mask2former_sample", missing, f"{missing}/images/training does not exist"),
        (CONFIG, devkits[0], f"{xml}, line "),
        (CONFIG, devkits[1], "names image"),
    ]
    commands = [["train", config, "--cfg-options", f"data_root={folder}"] for config, folder, _ in cases]
    code = f"""
import contextlib, io, json, sys, time
from cvplugins.cli import main
answers = []
for arguments in {commands}:
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        code = main(arguments)
    answers.append((code, printed.getvalue()))
print(json.dumps([answers, [name for name in {HEAVY} if name in sys.modules], time.process_time()]))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr
    answers, imported, seconds = json.loads(finished.stdout)
    for (exit_code, printed), (_, _, message) in zip(answers, cases, strict=True):
        assert (exit_code, printed.count("\n")) == (2, 1)
        assert message in printed
    assert imported == []
    assert seconds < 4  # 0.4 on a quiet core; importing mmdet alone takes 9
