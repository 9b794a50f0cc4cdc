"""Names of numbers that no validation gives: one line with the closest names, before any work; with both frameworks."""

import pytest
from devkits import small_devkit
from small_detectron2_run import write_config

CONFIG = "configs/voc_faster_rcnn_sample.py"
SAVE_BEST = "default_hooks.checkpoint.save_best"
STOP = [
    "custom_hooks.1.type=cvplugins.EarlyStoppingHook",
    "custom_hooks.1.monitor=bbox/precison",
    "custom_hooks.1.rule=greater",
]


@pytest.fixture
def devkit(sample, tmp_path):
    return small_devkit(sample, tmp_path / "VOCdevkit")


@pytest.mark.openmmlab
@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ([f"{SAVE_BEST}=bbox/AP5O"], ["save_best is 'bbox/AP5O'", "did you mean bbox/AP50"]),
        (STOP, ["custom_hooks.1.monitor is 'bbox/precison'", "did you mean bbox/precision"]),
        ([*STOP, "custom_hooks.1.monitor=5"], ["custom_hooks.1", "monitor is 5", "the name of a metric"]),
        (["val_evaluator.rules=['coco']"], ["save_best is 'bbox/AP50_11point'", "did you mean bbox/AP50"]),
        (["val_evaluator.prefix=pascal"], ["save_best is 'bbox/AP50_11point'", "did you mean pascal/AP50_11point"]),
    ],
)
def test_openmmlab(refused, devkit, options, parts):
    """The third rule does not give the number that the config monitors, the fourth gives it another name."""
    for command in (["--dry-run"], []):
        refused(parts, "train", CONFIG, *command, "--cfg-options", f"data_root={devkit}", *options)


@pytest.mark.openmmlab
def test_a_schedule_that_monitors_no_name(refused, root, devkit, tmp_path):
    """ReduceOnPlateauLR takes any value with a rule, and would look for it in the first validation."""
    config = tmp_path / "plateau.py"
    schedule = "[dict(type='ReduceOnPlateauLR', monitor=5, rule='greater')]"
    config.write_text(f"_base_ = {str(root / CONFIG)!r}\nparam_scheduler = {schedule}\n")
    parts = ["param_scheduler.0.monitor is 5", "the name of a metric"]
    refused(parts, "train", config, "--cfg-options", f"data_root={devkit}")


@pytest.mark.detectron2
@pytest.mark.parametrize(
    ("hook", "parts"),
    [
        ({"type": "BestCheckpointHook", "monitor": "bbox/AP5O"}, ["monitor is 'bbox/AP5O'", "did you mean bbox/AP50"]),
        ({"type": "EarlyStoppingHook", "monitor": "val/loss"}, ["monitor is 'val/loss'", "ValidationLoss adds losses"]),
        ({"type": "EarlyStoppingHook", "monitor": "segm/AP"}, ["monitor is 'segm/AP'", "did you mean bbox/AP"]),
        ({"type": "EarlyStoppingHook", "monitor": 5}, ["HOOKS[0]", "monitor is 5", "the name of a metric"]),
        (
            {"type": "BestCheckpointHook", "monitor": ["bbox/AP"], "rule": "less"},
            ["monitor is ['bbox/AP']", "the name of a metric"],
        ),
        (
            {
                "type": "OptimizerSwitchHook",
                "optimizer": {"type": "SGD", "lr": 0.1},
                "plateau": {"monitor": "bbox/AP/cats", "patience": 1},
            },
            ["plateau.monitor is 'bbox/AP/cats'", "did you mean bbox/AP/cat"],
        ),
    ],
)
def test_detectron2(refused, devkit, tmp_path, hook, parts):
    config = write_config(tmp_path / "small.yaml", devkit, **{"CVPLUGINS.HOOKS": [hook], "TEST.EVAL_PERIOD": 2})
    refused(parts, "train", config, "--dry-run")
    refused(parts, "train", config)
