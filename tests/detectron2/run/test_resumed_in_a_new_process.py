"""Runs that are resumed in another process: what lies outside of the checkpoint's weights, and what torch compiles."""

import pytest
import torch
from scenes import small_scenes
from small_detectron2_run import write_config
from small_mask2former import small_mask2former
from tool_runs import printed, start

pytestmark = [pytest.mark.detectron2, pytest.mark.slow]

NO_EVALUATION = {"CVPLUGINS.EVALUATORS": [{"type": "CvpluginsDetectionEvaluator", "out_dir": None}]}


def final(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)


def assert_resumed_equals_straight(root, config, folder, first):
    """Oracle: the run that nobody stopped, to the last bit; each run has a process of its own."""
    straight, resumed = folder / "straight", folder / "resumed"
    printed(start(root, "tools/train.py", config, "--work-dir", straight))
    checkpoint = straight / f"model_{first:07}.pth"
    printed(start(root, "tools/train.py", config, "--work-dir", resumed, "--resume", checkpoint))
    ends = final(straight)["model"], final(resumed)["model"]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    return final(straight), final(resumed)


def test_retinanet(root, tmp_path, devkit):
    """Its losses are divided by a running mean of the positive anchors, and are scripted."""
    keys = {"SOLVER.MAX_ITER": 8, "SOLVER.CHECKPOINT_PERIOD": 4, **NO_EVALUATION}
    config = write_config(tmp_path / "retinanet.yaml", devkit, kind="retinanet", **keys)
    for end in assert_resumed_equals_straight(root, config, tmp_path, 3):
        normalizer = end["trainer"]["hooks"]["ModelNumbersHook"]["of_ranks"][0][""]["loss_normalizer"]
        assert normalizer < 99  # from 100, by a hundredth of the difference each time


@pytest.mark.mask2former
def test_mask2former(root, tmp_path, scenes):
    """Its losses and its matching are scripted; torch compiles them anew after their first calls."""
    cfg = small_mask2former(scenes=small_scenes(scenes, tmp_path / "ADEChallengeData2016"))
    cfg.SOLVER.update(MAX_ITER=6, CHECKPOINT_PERIOD=3)
    cfg.DATASETS.TEST = ()
    config = tmp_path / "mask2former.yaml"
    config.write_text(cfg.dump())
    assert_resumed_equals_straight(root, config, tmp_path, 2)
