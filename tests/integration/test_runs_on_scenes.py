"""What the tools call, on Mask2Former and ADE20K's layout: train, test in every way, resume; most in this process."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from scenes import small_scenes
from tool_runs import logged_losses, run_on_ranks, summary

pytestmark = [pytest.mark.openmmlab, pytest.mark.slow]

CONFIG = "tests/integration/tiny_mask2former.py"


@pytest.fixture(scope="module", autouse=True)
def in_the_project(root):
    """The configs name the sample from there; the environment of a run is not that of the tests after it."""
    from mmengine.registry import DefaultScope

    with pytest.MonkeyPatch.context() as patch, DefaultScope.overwrite_default_scope("mmseg"):
        patch.chdir(root)
        yield


def options(work_dir, data, **settings):
    time.sleep(1)  # the folders of the runs are named by the second
    # mmengine gives out an older visualizer of the same name, which logs into the older run's folder.
    settings.update({"data_root": str(data), "visualizer.name": str(work_dir)})
    return {"work_dir": str(work_dir), "cfg_options": settings}


def train(config, work_dir, data, settings=None, **more):
    from cvplugins.openmmlab.run import launch

    return launch.train(config, **options(work_dir, data, **(settings or {})), **more)


def evaluate(config, checkpoint, work_dir, data, settings=None, **more):
    from cvplugins.openmmlab.run import launch

    more = {name: str(value) if isinstance(value, Path) else value for name, value in more.items()}
    return launch.evaluate(config, checkpoint, **options(work_dir, data, **(settings or {})), **more)


def printed_metrics(output):
    found = {name: value for name, value in summary(output).items() if name.startswith("sem_seg/")}
    assert {"sem_seg/mIoU", "sem_seg/mDice", "sem_seg/mBoundaryIoU"} <= set(found)
    return found


@pytest.fixture(scope="module")
def few(scenes, tmp_path_factory):
    return small_scenes(scenes, tmp_path_factory.mktemp("data") / "ADEChallengeData2016")


@pytest.fixture(scope="module")
def straight(few, tmp_path_factory):
    """A run of six iterations, and what it printed."""
    work_dir = tmp_path_factory.mktemp("straight")
    return work_dir, train(CONFIG, work_dir, few)


def test_a_resumed_run_equals_the_straight_one(straight, few, tmp_path):
    """The kill itself: tests/integration/test_runs.py; here what Mask2Former draws, points, depends on no state."""
    shutil.copy(straight[0] / "iter_4.pth", tmp_path)
    output = train(CONFIG, tmp_path, few, resume="auto")
    resumed, expected = logged_losses(tmp_path), logged_losses(straight[0])
    assert sorted(expected) == [1, 2, 3, 4, 5, 6]
    assert resumed == {iteration: expected[iteration] for iteration in (5, 6)}
    assert printed_metrics(output) == printed_metrics(straight[1])


@pytest.fixture(scope="module")
def tested(straight, few, tmp_path_factory):
    """The last checkpoint tested on whole images, with overlays and label maps written."""
    folder = tmp_path_factory.mktemp("tested")
    written = {"show_dir": folder / "drawn", "label_dir": folder / "maps", "out": folder / "metrics.json"}
    return folder, evaluate(CONFIG, straight[0] / "iter_6.pth", folder, few, **written)


def test_testing_gives_the_last_validation_again_and_writes_images(straight, tested, few):
    from PIL import Image

    folder, output = tested
    assert printed_metrics(output) == printed_metrics(straight[1])
    names = {path.stem for path in (few / "images" / "validation").iterdir()}
    for kind in ("drawn", "maps"):
        assert {path.name for path in (folder / kind).iterdir()} == {f"{name}.png" for name in names}
    for name in names:
        image, labels = (
            Image.open(few / "images/validation" / f"{name}.jpg"),
            Image.open(folder / "maps" / f"{name}.png"),
        )
        assert labels.mode == "L"
        assert labels.size == image.size
        assert 1 <= np.min(labels) <= np.max(labels) <= 150
        drawn = Image.open(folder / "drawn" / f"{name}.png")
        assert drawn.width >= 3 * image.width
        assert len(np.unique(np.asarray(drawn).reshape(-1, 3), axis=0)) > 50


def test_the_label_maps_score_what_the_run_scored_and_mmseg_agrees(tested, few, scenes):
    """Oracles: our evaluation of the written files, and mmseg's IoUMetric on the same arrays."""
    from mmseg.evaluation import IoUMetric
    from PIL import Image
    from torch import tensor

    from cvplugins.datasets import ADE20K_CLASSES
    from cvplugins.evaluation.label_images import evaluate_label_images

    folder, _ = tested
    metrics = json.loads((folder / "metrics.json").read_text())
    labels = few / "annotations" / "validation"
    again = evaluate_label_images(folder / "maps", labels, ADE20K_CLASSES, reduce_zero_label="both").scalars()
    for name in ("mIoU", "aAcc", "mDice"):
        assert again[name] == pytest.approx(metrics[f"sem_seg/{name}"], abs=1e-12)
    areas = []
    for path in sorted(labels.iterdir()):
        found, label = (np.asarray(Image.open(each)).astype(np.int64) for each in (folder / "maps" / path.name, path))
        label = np.where(label == 0, 255, label - 1)
        areas.append(IoUMetric.intersect_and_union(tensor(found - 1), tensor(label), 150, 255))
    theirs = IoUMetric.total_area_to_metrics(*(sum(each) for each in zip(*areas, strict=True)), ["mIoU"])
    assert np.nanmean(theirs["IoU"]) == pytest.approx(metrics["sem_seg/mIoU"], abs=1e-6)
    assert theirs["aAcc"] == pytest.approx(metrics["sem_seg/aAcc"], abs=1e-6)


def test_windows_scales_and_flips_run_together(straight, few, tmp_path):
    ways = {"mode": "slide", "scales": [0.75, 1.25], "flip": True, "label_dir": tmp_path / "maps"}
    printed_metrics(evaluate(CONFIG, straight[0] / "iter_6.pth", tmp_path, few, **ways))
    assert len(list((tmp_path / "maps").iterdir())) == 3


@pytest.mark.distributed
def test_two_processes_test_as_one_does(root, straight, tested, few, tmp_path):
    """Three images on two processes: the sampler pads one, the metric drops it."""
    more = ["--work-dir", tmp_path, "--out", tmp_path / "metrics.json", "--label-dir", tmp_path / "maps"]
    more += ["--cfg-options", f"data_root={few}"]
    run_on_ranks(root, 2, "tools/test.py", CONFIG, straight[0] / "iter_6.pth", *more)
    assert json.loads((tmp_path / "metrics.json").read_text()) == json.loads((tested[0] / "metrics.json").read_text())
    for path in (tmp_path / "maps").iterdir():
        assert path.read_bytes() == (tested[0] / "maps" / path.name).read_bytes()


def test_the_sample_is_learnt(scenes, tmp_path):
    """A tenth of the sample config's iterations, which reach 0.12; all of them, 2 minutes, reach 0.604 (README)."""
    config, few = "configs/ade20k_mask2former_sample.py", {"val_dataloader.dataset.indices": 12}
    length = {"train_cfg.max_iters": 40, "train_cfg.val_interval": 40, "param_scheduler.1.end": 40}
    output = train(config, tmp_path, scenes, {**few, **length})
    assert float(printed_metrics(output)["sem_seg/mIoU"]) > 0.08


def test_an_untrained_model_scores_nothing_on_the_sample(scenes, tmp_path):
    import torch
    from mmengine.registry import MODELS

    from cvplugins.openmmlab.run.config import load_config

    config = "configs/ade20k_mask2former_sample.py"
    torch.manual_seed(0)
    model = MODELS.build(load_config(config).model)
    model.init_weights()
    torch.save(model.state_dict(), tmp_path / "untrained.pth")
    output = evaluate(config, tmp_path / "untrained.pth", tmp_path, scenes, {"test_dataloader.dataset.indices": 12})
    assert float(printed_metrics(output)["sem_seg/mIoU"]) < 0.03


def test_real_images_train_the_whole_r50_config(root, real_ade20k, tmp_path):
    """Every layer of the full model, from random weights, at a crop that fits any machine."""
    config = tmp_path / "config.py"
    config.write_text(
        f"_base_ = {str(root / 'configs/ade20k_mask2former_r50.py')!r}\n"
        "model = dict(data_preprocessor=dict(size=(96, 96)), backbone=dict(init_cfg=None))\n"
        "custom_hooks = _base_.custom_hooks\n"
        "custom_hooks[2].detail_interval = 0\n"  # its figure takes longer than the training
        "train_pipeline = _base_.train_pipeline\n"
        "train_pipeline[2].scales, train_pipeline[3].crop_size = [96, 128], (96, 96)\n"
        "test_pipeline = _base_.test_pipeline\n"
        "test_pipeline[1].scale = (512, 96)\n"
        "train_dataloader = dict(batch_size=1, num_workers=1, dataset=dict(pipeline=train_pipeline))\n"
        "val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline))\n"
        "test_dataloader = val_dataloader\n"
        "train_cfg = dict(max_iters=2, val_interval=2)\n"
        "default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2, save_best=None))\n"
    )
    data = real_ade20k / "ADEChallengeData2016"
    output = train(config, tmp_path / "work", data)
    losses = logged_losses(tmp_path / "work")
    assert sorted(losses) == [1, 2]
    assert {f"decode.d{layer}.loss_dice" for layer in range(9)} <= set(losses[1])
    log = Path(summary(output)["log"]).read_text()
    assert "53 " in log.partition("normalisation policy")[2][:600]
    assert "frozen" in log.partition("normalisation policy")[2][:600]
    written = json.loads(Path(summary(output)["results"]).read_text())
    assert written["num_images"] == 3
    evaluate(config, tmp_path / "work" / "iter_2.pth", tmp_path, data, show_dir=tmp_path / "drawn")
    assert len(list((tmp_path / "drawn").iterdir())) == 3
