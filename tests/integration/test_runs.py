"""The tools as a user runs them, in processes of their own: train, test, resume after a kill, several processes."""

import json
import re
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from devkits import small_devkit
from tool_runs import (
    ENVIRONMENT,
    TINY,
    logged_losses,
    printed,
    printed_metrics,
    run,
    run_on_ranks,
    run_until,
    start,
    summary,
)

pytestmark = [pytest.mark.openmmlab, pytest.mark.slow]

NO_DRY_RUN = "for last; do :; done; [ $last = --dry-run ] && exit 0; "


@pytest.fixture(scope="module")
def devkit(sample, tmp_path_factory):
    return small_devkit(sample, tmp_path_factory.mktemp("data") / "VOCdevkit")


def script(path, commands):
    """Write a script of the shell, and return its path."""
    path.write_text(f"#!/bin/sh\n{commands}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope="module")
def straight(root, devkit, tmp_path_factory):
    """A run of three epochs of six iterations, and what it printed."""
    work_dir = tmp_path_factory.mktemp("straight")
    command = ["tools/train.py", TINY, "--work-dir", work_dir, "--cfg-options", f"data_root={devkit}"]
    return work_dir, printed(start(root, *command, anew=True))


@pytest.fixture(scope="module")
def tested(root, straight, devkit, tmp_path_factory):
    """The last checkpoint tested and drawn, and what that printed."""
    folder = tmp_path_factory.mktemp("tested")
    written = ["--work-dir", folder, "--out", folder / "metrics.json", "--show-dir", folder / "drawn"]
    command = ["tools/test.py", TINY, straight[0] / "epoch_3.pth", *written, "--cfg-options", f"data_root={devkit}"]
    return folder, run(root, *command)


def test_training_shows_progress_and_ends_with_metrics_and_paths(straight):
    work_dir, output = straight
    assert re.search(r"Epoch\(train\) +\[1\]\[1/6\].* eta: .* loss: ", output)
    assert "training plan: 6 images, 1 times an epoch, 3 epochs = 3.0 effective epochs; batch 1 (1 processes)" in output
    found = summary(output)
    assert {"bbox/AP50", "bbox/AP50_11point", "bbox/AP", "bbox/AR100"} <= set(found)
    for name in ("checkpoint", "log", "results", "figure"):
        assert Path(found[name]).is_file()
        assert Path(found[name]).is_relative_to(work_dir)
    assert Path(found["checkpoint"]).name == "epoch_3.pth"
    written = json.loads(Path(found["results"]).read_text())
    assert f"{written['mean']['AP50']:.4f}" == found["bbox/AP50"]


def test_testing_gives_the_last_validation_again(root, straight, tested, devkit, tmp_path):
    (work_dir, output), (folder, again) = straight, tested
    assert printed_metrics(again) == printed_metrics(output)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert f"{metrics['bbox/AP']:.4f}" == printed_metrics(again)["bbox/AP"]
    assert len(list((folder / "drawn").glob("**/*.jpg"))) == 3
    places = summary(again)
    assert places["checkpoint"] == str(work_dir / "epoch_3.pth")
    for name in ("log", "results", "figure"):
        assert Path(places[name]).is_file()
        assert Path(places[name]).is_relative_to(folder)
    dumped = tmp_path / "predictions.pkl"
    options = ["--work-dir", tmp_path, "--out", dumped, "--cfg-options", f"data_root={devkit}"]
    run(root, "tools/test.py", TINY, work_dir / "epoch_3.pth", *options)
    assert dumped.stat().st_size > 100
    assert dumped.read_bytes() == (tmp_path / "test_results" / "predictions.pkl").read_bytes()


def test_resuming_a_finished_run_validates_its_last_weights(root, straight, devkit, tmp_path):
    work_dir, output = straight
    options = [
        "--work-dir",
        tmp_path,
        "--cfg-options",
        f"data_root={devkit}",
        "load_from=" + str(work_dir / "epoch_3.pth"),
    ]
    again = run(root, "tools/train.py", TINY, *options, "resume=True")
    assert printed_metrics(again) == printed_metrics(output)
    assert not logged_losses(tmp_path)


def test_a_killed_and_resumed_run_equals_the_straight_one(root, straight, devkit, tmp_path):
    command = ["tools/train.py", TINY, "--work-dir", tmp_path, "--resume", "auto"]
    command += ["--cfg-options", f"data_root={devkit}"]
    assert run_until(root, r"Epoch\(train\) +\[2\]\[4/6\]", *command).returncode == -signal.SIGKILL
    assert (tmp_path / "epoch_1.pth").is_file()
    assert not (tmp_path / "epoch_2.pth").exists()
    # What a kill within a write leaves behind must not be taken for a checkpoint.
    (tmp_path / ".epoch_2.pth.1.tmp").write_bytes(b"half")
    time.sleep(1)  # the folders of the runs are named by the second
    output = run(root, *command)
    assert "no checkpoint in" not in output
    resumed, expected = logged_losses(tmp_path), logged_losses(straight[0])
    assert len(expected) == 18
    assert resumed == expected
    assert printed_metrics(output) == printed_metrics(straight[1])


@pytest.mark.distributed
def test_two_processes_test_as_one_does_at_the_port_that_is_named(
    root, straight, tested, devkit, tmp_path, monkeypatch
):
    """Three images on two processes: the sampler pads one, the metric drops it."""
    command = ["tools/dist_test.sh", TINY, straight[0] / "epoch_3.pth", "2", "--out", tmp_path / "metrics.json"]
    command += ["--work-dir", tmp_path, "--cfg-options", f"data_root={devkit}"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setitem(ENVIRONMENT, "PORT", str(taken.getsockname()[1]))
        with monkeypatch.context() as patch:  # its dry run costs the imports, and says nothing of the port
            patch.setitem(ENVIRONMENT, "PYTHON", script(tmp_path / "python", f"{NO_DRY_RUN}exec {sys.executable} $@"))
            run(root, *command, fails=True)
    two = run(root, *command)
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (tested[0], tmp_path)]
    assert metrics[0] == metrics[1]
    assert printed_metrics(tested[1]) == printed_metrics(two)


def test_the_script_starts_what_the_test_of_two_processes_starts(root, tmp_path, monkeypatch):
    """Oracle: the commands by hand, the second of which the test of dist_test.sh runs with its own tool."""
    record = script(tmp_path / "python", f'echo "$LOCAL_WORLD_SIZE" "$@" >> {tmp_path}/commands')
    monkeypatch.setitem(ENVIRONMENT, "PYTHON", record)
    monkeypatch.delitem(ENVIRONMENT, "LOCAL_WORLD_SIZE", raising=False)
    run(root, "tools/dist_train.sh", TINY, "2", "--seed", "5")
    job = f"{root}/tools/train.py {TINY} --seed 5"
    assert (tmp_path / "commands").read_text().splitlines() == [
        f"2 {job} --dry-run",
        f" -m torch.distributed.run --standalone --nproc_per_node 2 {job} --launcher pytorch",
    ]


@pytest.mark.distributed
def test_two_processes_train(root, devkit, tmp_path):
    options = ["--work-dir", tmp_path, "--auto-scale-lr", "--seed", "5", "--cfg-options", f"data_root={devkit}"]
    options += ["train_cfg.max_epochs=1", "train_cfg.val_interval=1"]
    output, _ = run_on_ranks(root, 2, "tools/train.py", TINY, *options)
    assert re.search(r"seed: 5\b", output)
    assert "Scaling the original LR by 0.25" in output  # batch 2 instead of 8
    assert "batch 2 (2 processes)" in output
    assert re.search(r"\n20 +torch.BatchNorm2d +cvplugins.SyncBatchNorm +backbone", output)
    assert len(logged_losses(tmp_path)) == 3
    assert "bbox/AP50" in summary(output)
