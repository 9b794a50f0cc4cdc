"""Paths that cannot be read or written: one line before any work, and before a framework is imported."""

import os
import subprocess
import sys
import time

import pytest
from devkits import first_id, small_devkit, split_file

CONFIG = "configs/voc_faster_rcnn_sample.py"
LONG = "a" * 300


@pytest.fixture
def answer(root, tmp_path):
    """Run a tool in a process in which no framework and no torch can be imported; return its error line."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nfor name in ('torch', 'mmengine', 'mmdet', 'detectron2'):\n    sys.modules[name] = None\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}

    def _answer(*command):
        command = [sys.executable, f"tools/{command[0]}.py", *map(str, command[1:])]
        finished = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=60)
        assert finished.returncode == 2, finished.stderr
        assert "Traceback" not in finished.stderr
        return finished.stderr.splitlines()[-1]

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
def test_data_of_our_own_configs_is_looked_for_at_once(answer, sample, tmp_path):
    """What is broken is what the messages name; the config is in neither case loaded by a framework."""
    missing = tmp_path / "nothing"
    option = f"data_root={missing}"
    assert f"{missing}/VOC2007 does not exist" in answer("train", CONFIG, "--cfg-options", option)
    scenes = answer("train", "ade20k_mask2former_sample", "--cfg-options", option)
    assert f"{missing}/images/training does not exist" in scenes
    devkit = small_devkit(sample, tmp_path / "VOCdevkit")
    option = f"data_root={devkit}"
    xml = devkit / "VOC2007" / "Annotations" / f"{first_id(devkit)}.xml"
    whole = xml.read_text()
    xml.write_text(whole.replace("</annotation>", ""))
    assert f"{xml}, line " in answer("train", CONFIG, "--cfg-options", option)
    xml.write_text(whole)
    with split_file(devkit, "VOC2007", "trainval").open("a") as file:
        file.write(f"{first_id(devkit)}\n")
    assert "names image" in answer("train", CONFIG, "--cfg-options", option)


def test_an_answer_that_needs_no_framework_takes_less_than_a_second(answer):
    """Processor time, because other processes may share the machine."""
    before = sum(os.times()[2:4])
    started = time.monotonic()
    answer("train", CONFIG, "--cfg-options", "data_root=/nowhere")
    assert min(sum(os.times()[2:4]) - before, time.monotonic() - started) < 1.0
