"""The tools as a user runs them, in processes of their own: train, test, resume after a kill, several processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from devkits import small_devkit
from runs import ENVIRONMENT, logged_losses, run, summary

pytestmark = [pytest.mark.openmmlab, pytest.mark.slow]

CONFIG = "tests/integration/tiny.py"


def printed_metrics(output):
    found = {name: value for name, value in summary(output).items() if name.startswith("voc/")}
    assert "voc/AP50" in found
    return found


@pytest.fixture(scope="module")
def devkit(sample, tmp_path_factory):
    return small_devkit(sample, tmp_path_factory.mktemp("data") / "VOCdevkit")


@pytest.fixture(scope="module")
def straight(root, devkit, tmp_path_factory):
    """A run of three epochs of six iterations, and what it printed."""
    work_dir = tmp_path_factory.mktemp("straight")
    output = run(root, "tools/train.py", CONFIG, "--work-dir", work_dir, "--cfg-options", f"data_root={devkit}")
    return work_dir, output


def test_training_shows_progress_and_ends_with_metrics_and_paths(straight):
    work_dir, output = straight
    assert re.search(r"Epoch\(train\) +\[1\]\[1/6\].* eta: .* loss: ", output)
    assert "training plan: 6 images, 1 times an epoch, 3 epochs = 3.0 effective epochs; batch 1 (1 processes)" in output
    found = summary(output)
    assert {"voc/AP50", "voc/AP50_11point", "voc/AP", "voc/AR100"} <= set(found)
    for name in ("checkpoint", "log", "results", "figure"):
        assert Path(found[name]).is_file()
        assert Path(found[name]).is_relative_to(work_dir)
    assert Path(found["checkpoint"]).name == "epoch_3.pth"
    written = json.loads(Path(found["results"]).read_text())
    assert f"{written['mean']['AP50']:.4f}" == found["voc/AP50"]


def test_testing_gives_the_last_validation_again(root, straight, devkit, tmp_path):
    work_dir, output = straight
    out, show = tmp_path / "metrics.json", tmp_path / "drawn"
    options = ["--work-dir", tmp_path, "--out", out, "--show-dir", show, "--cfg-options", f"data_root={devkit}"]
    tested = run(root, "tools/test.py", CONFIG, work_dir / "epoch_3.pth", *options)
    assert printed_metrics(tested) == printed_metrics(output)
    assert f"{json.loads(out.read_text())['voc/AP']:.4f}" == printed_metrics(tested)["voc/AP"]
    assert len(list(show.glob("**/*.jpg"))) == 3
    places = summary(tested)
    assert places["checkpoint"] == str(work_dir / "epoch_3.pth")
    for name in ("log", "results", "figure"):
        assert Path(places[name]).is_file()
        assert Path(places[name]).is_relative_to(tmp_path)
    dumped = tmp_path / "predictions.pkl"
    options = ["--work-dir", tmp_path, "--out", dumped, "--cfg-options", f"data_root={devkit}"]
    run(root, "tools/test.py", CONFIG, work_dir / "epoch_3.pth", *options)
    assert dumped.stat().st_size > 100


def test_resuming_a_finished_run_validates_its_last_weights(root, straight, devkit, tmp_path):
    work_dir, output = straight
    options = [
        "--work-dir",
        tmp_path,
        "--cfg-options",
        f"data_root={devkit}",
        "load_from=" + str(work_dir / "epoch_3.pth"),
    ]
    again = run(root, "tools/train.py", CONFIG, *options, "resume=True")
    assert printed_metrics(again) == printed_metrics(output)
    assert not logged_losses(tmp_path)


def test_a_killed_and_resumed_run_equals_the_straight_one(root, straight, devkit, tmp_path):
    command = [sys.executable, "tools/train.py", CONFIG, "--work-dir", str(tmp_path), "--resume", "auto"]
    command += ["--cfg-options", f"data_root={devkit}"]
    options = {"cwd": root, "env": ENVIRONMENT, "text": True, "start_new_session": True}
    with subprocess.Popen(command, stdout=subprocess.PIPE, **options) as process:
        for line in process.stdout:
            if re.search(r"Epoch\(train\) +\[2\]\[4/6\]", line):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "epoch_1.pth").is_file()
    assert not (tmp_path / "epoch_2.pth").exists()
    # What a kill within a write leaves behind must not be taken for a checkpoint.
    (tmp_path / ".epoch_2.pth.1.tmp").write_bytes(b"half")
    time.sleep(1)  # the folders of the runs are named by the second
    output = run(root, *command[1:])
    assert "no checkpoint in" not in output
    resumed, expected = logged_losses(tmp_path), logged_losses(straight[0])
    assert len(expected) == 18
    assert resumed == expected
    assert printed_metrics(output) == printed_metrics(straight[1])


def test_the_sample_is_learnt(root, tmp_path):
    """A quarter of the sample config's epochs; the whole of it, 4 minutes, reaches 0.727 (README)."""
    options = ["--work-dir", tmp_path, "--cfg-options", "train_cfg.max_epochs=4", "train_cfg.val_interval=4"]
    output = run(root, "tools/train.py", "configs/voc_faster_rcnn_sample.py", *options)
    assert float(printed_metrics(output)["voc/AP50_11point"]) > 0.2


def test_an_untrained_model_scores_nothing_on_the_sample(root, tmp_path):
    import torch
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    from cvplugins.openmmlab.config import load_config

    init_default_scope("mmdet")
    torch.manual_seed(0)
    model = MODELS.build(load_config(root / "configs/voc_faster_rcnn_sample.py").model)
    model.init_weights()
    torch.save(model.state_dict(), tmp_path / "untrained.pth")
    options = ["--work-dir", tmp_path, "--out", tmp_path / "metrics.json"]
    run(root, "tools/test.py", "configs/voc_faster_rcnn_sample.py", tmp_path / "untrained.pth", *options)
    assert json.loads((tmp_path / "metrics.json").read_text())["voc/AP50_11point"] < 0.02


def test_real_photographs_train_and_report_like_the_sample(root, real_voc, tmp_path):
    options = ["--work-dir", tmp_path, "--cfg-options", f"data_root={real_voc / 'VOCdevkit'}", "train_cfg.max_epochs=1"]
    output = run(root, "tools/train.py", CONFIG, *options, "train_cfg.val_interval=1", "train_dataloader.batch_size=4")
    assert "training plan: 60 images" in output
    written = json.loads(Path(summary(output)["results"]).read_text())
    assert written["num_images"] == 20
    assert sum(each["num_truths"] for each in written["per_class"].values()) > 20
    assert len(logged_losses(tmp_path)) == 15


@pytest.mark.distributed
def test_two_processes_test_as_one_does(root, straight, devkit, tmp_path):
    """Three images on two processes: the sampler pads one, the metric drops it."""
    options = ["--work-dir", tmp_path, "--cfg-options", f"data_root={devkit}"]
    outs = [tmp_path / f"metrics{count}.json" for count in (1, 2)]
    checkpoint = straight[0] / "epoch_3.pth"
    one = run(root, "tools/test.py", CONFIG, checkpoint, "--out", outs[0], *options)
    two = run(root, "tools/dist_test.sh", CONFIG, checkpoint, "2", "--out", outs[1], *options)
    metrics = [json.loads(out.read_text()) for out in outs]
    assert metrics[0] == metrics[1]
    assert printed_metrics(one) == printed_metrics(two)


@pytest.mark.distributed
def test_two_processes_train(root, devkit, tmp_path):
    options = ["--work-dir", tmp_path, "--auto-scale-lr", "--seed", "5", "--cfg-options", f"data_root={devkit}"]
    options += ["train_cfg.max_epochs=1", "train_cfg.val_interval=1"]
    output = run(root, "tools/dist_train.sh", CONFIG, "2", *options)
    assert re.search(r"seed: 5\b", output)
    assert "Scaling the original LR by 0.25" in output  # batch 2 instead of 8
    assert "batch 2 (2 processes)" in output
    assert re.search(r"\n20 +torch.BatchNorm2d +cvplugins.SyncBatchNorm +backbone", output)
    assert len(logged_losses(tmp_path)) == 3
    assert "voc/AP50" in summary(output)


@pytest.mark.distributed
def test_a_port_is_honoured(root, straight, devkit, tmp_path, monkeypatch):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setitem(ENVIRONMENT, "PORT", str(taken.getsockname()[1]))
        options = ["--work-dir", tmp_path, "--cfg-options", f"data_root={devkit}"]
        run(root, "tools/dist_test.sh", CONFIG, straight[0] / "epoch_3.pth", "1", *options, fails=True)
    run(root, "tools/dist_test.sh", CONFIG, straight[0] / "epoch_3.pth", "1", *options)


def test_upstream_mmdet_takes_a_config_that_names_our_plugins(root, devkit, tmp_path):
    import mmdet

    tool = Path(mmdet.__file__).parent / ".mim" / "tools" / "train.py"
    path = tmp_path / "config.py"
    sets = [f"{name}.dataset.data_root={devkit}" for name in ("val_dataloader", "test_dataloader")]
    sets += [f"train_dataloader.dataset.dataset.datasets.{index}.data_root={devkit}" for index in (0, 1)]
    path.write_text(
        f"_base_ = {str(root / CONFIG)!r}\n"
        "model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(_delete_=True, type='cvplugins.FocalLoss'))))\n"
    )
    sets += ["train_cfg.max_epochs=1", "train_cfg.val_interval=1"]
    output = run(root, tool, path, "--work-dir", tmp_path / "work", "--cfg-options", *sets)
    assert "voc/AP50_11point: " in output
    assert "training plan" in output
    assert "normalisation policy:\nlayers" in output


def test_upstream_mmseg_takes_a_config_that_names_our_plugins(root, tmp_path):
    import mmseg
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for name, folder, channels in (("a", "images", 3), ("a", "labels", 1)):
        (tmp_path / folder).mkdir()
        pixels = generator.integers(0, 3, (64, 64, channels), dtype=np.uint8).squeeze()
        Image.fromarray(pixels).save(tmp_path / folder / f"{name}.png")
    path = tmp_path / "config.py"
    path.write_text(
        f"""
default_scope = 'mmseg'
pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 64)),
    backbone=dict(type='ResNetV1c', depth=18, base_channels=8, norm_cfg=dict(type='cvplugins.SyncBatchNorm')),
    decode_head=dict(
        type='FCNHead', in_channels=64, channels=8, num_classes=3, loss_decode=dict(type='cvplugins.FocalLoss')),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
train_dataloader = dict(
    batch_size=2, sampler=dict(type='InfiniteSampler'),
    dataset=dict(
        type='BaseSegDataset', data_root={str(tmp_path)!r}, img_suffix='.png', pipeline=pipeline,
        data_prefix=dict(img_path='images', seg_map_path='labels'), metainfo=dict(classes=('a', 'b', 'c'))))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
custom_hooks = [dict(type='cvplugins.GradientHealthHook'), dict(type='cvplugins.ThroughputHook', interval=1)]
default_hooks = dict(logger=dict(type='LoggerHook', interval=1))
"""
    )
    tool = Path(mmseg.__file__).parent / ".mim" / "tools" / "train.py"
    output = run(root, tool, path, "--work-dir", tmp_path / "work")
    assert "decode.loss_focal: " in output
    assert "gradient/norm: " in output
    assert "throughput: " in output
