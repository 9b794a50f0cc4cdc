"""What only the first iteration of a Detectron2 run would show: one line before the run, nothing written or lost."""

import logging

import pytest
import torch
from devkits import small_devkit
from small_detectron2_run import write_config

pytestmark = pytest.mark.detectron2

BOTH = pytest.mark.parametrize("dry_run", [["--dry-run"], []])
GUARD = "CVPLUGINS.HOOKS=[{'type': 'NonFiniteGuardHook', 'policy': '%s', 'max_skips': 1}]"


@pytest.fixture(scope="module")
def devkit(sample, tmp_path_factory):
    return small_devkit(sample, tmp_path_factory.mktemp("values") / "VOCdevkit")


@pytest.fixture(scope="module")
def config(devkit, tmp_path_factory):
    keys = {"SOLVER.MAX_ITER": 1, "SOLVER.STEPS": (), "TEST.DETECTIONS_PER_IMAGE": 5}
    return write_config(tmp_path_factory.mktemp("config") / "small.yaml", devkit, **keys)


@pytest.fixture(scope="module")
def retinanet(devkit, tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("retinanet") / "small.yaml", devkit, "retinanet")


FAIL = "a batch of DATASETS.TRAIN does not go through the model"


@BOTH
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["MODEL.MASK_ON=True"], [FAIL, "gt_masks", "the command line sets MODEL.MASK_ON = True"]),
        (["MODEL.RPN.CONV_DIMS=[0]"], [FAIL, "MODEL.RPN.CONV_DIMS = [0]"]),
        (["MODEL.RPN.BBOX_REG_LOSS_TYPE=gio"], [FAIL, "'gio'"]),
        (
            ["INPUT.CROP.ENABLED=True", "INPUT.CROP.TYPE=absolute", "INPUT.CROP.SIZE=[9999,9999]", "INPUT.FORMAT=L"],
            ["PIXEL_MEAN", "1 channels"],
        ),
        (["MODEL.PIXEL_STD=[1e-38,1.0,1.0]"], ["losses of the first batch", "first layer", "stem.conv1"]),
        (["SOLVER.BASE_LR=1e30"], ["after the first step", "SOLVER.BASE_LR", "lower it"]),
        (["MODEL.PIXEL_STD=[1e-38,1.0,1.0]", GUARD % "raise"], ["not finite: loss total_loss", "first layer"]),
    ],
)
def test_what_fails_in_the_first_iteration(refused, config, options, said, dry_run):
    """Oracle: Detectron2, whose run ends there."""
    refused(said, "train", config, "--cfg-options", *options, *dry_run)


def test_a_guard_that_skips_may_begin_with_a_loss_that_is_not_finite(tool, config, caplog):
    """Oracle: the run, in which the guard's policy says what happens."""
    options = ["--cfg-options", "MODEL.PIXEL_STD=[1e-38,1.0,1.0]", GUARD % "skip"]
    with caplog.at_level(logging.WARNING, logger="detectron2.cvplugins"):
        assert tool("train", config, "--dry-run", *options)[0] == 0
    assert "skipped (number 1 in a row)" in caplog.text


def test_a_training_that_diverges_later_is_one_line_too(tool, config, tmp_path):
    """Oracle: Detectron2's FloatingPointError of the second iteration; what the run wrote stays."""
    options = ["SOLVER.MAX_ITER=3", "SOLVER.BASE_LR=1e20", "SOLVER.WARMUP_FACTOR=0.0", "DATASETS.TEST=()"]
    code, _, errors = tool("train", config, "--cfg-options", *options)
    assert code == 2
    assert len(errors) == 1
    assert "the training stops: " in errors[0]
    assert (tmp_path / "work" / "log.txt").is_file()


def test_resuming_is_refused_alike_and_loses_nothing(tool, config, tmp_path):
    work = tmp_path / "work"
    assert tool("train", config, "--cfg-options", "TEST.EVAL_PERIOD=0", "DATASETS.TEST=()")[0] == 0
    before = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    options = ["--cfg-options", "MODEL.RPN.BBOX_REG_LOSS_TYPE=gio", "SOLVER.MAX_ITER=3"]
    for given in (["--resume"], ["--overwrite"], ["--resume", "--dry-run"]):
        code, _, errors = tool("train", config, *given, *options)
        assert (code, len(errors)) == (2, 1)
        assert FAIL in errors[0]
    checkpoint = torch.load(work / "model_final.pth", weights_only=False)
    name = "backbone.fpn_lateral3.weight"
    checkpoint["model"][name][0] = torch.nan
    torch.save(checkpoint, tmp_path / "broken.pth")
    said = f"broken.pth: {checkpoint['model'][name][0].numel()} of the {checkpoint['model'][name].numel()} numbers of "
    for given in (
        ["train", config, "--resume", tmp_path / "broken.pth", "--dry-run"],
        ["train", config, "--overwrite", "--cfg-options", f"MODEL.WEIGHTS={tmp_path / 'broken.pth'}"],
        ["test", config, tmp_path / "broken.pth"],
    ):
        code, _, errors = tool(*given)
        assert (code, len(errors)) == (2, 1)
        assert f"{said}{name} are NaN or infinite" in errors[0]
    moments = checkpoint["trainer"]["_trainer"]["optimizer"]["state"]
    checkpoint["model"][name][0] = 0
    next(iter(moments.values()))["momentum_buffer"].fill_(torch.inf)
    torch.save(checkpoint, tmp_path / "broken.pth")
    code, _, errors = tool("train", config, "--resume", tmp_path / "broken.pth", "--overwrite")
    assert code == 2
    code, _, errors = tool("train", config, "--resume", tmp_path / "broken.pth", "--dry-run")
    assert {path: path.read_bytes() for path in work.rglob("*") if path.is_file()} == before


REFUSED = [
    ("VERSION=9", "only 2 is read"),
    ("SOLVER.MOMENTUM=2.0", "expected below 1"),
    ("SOLVER.MOMENTUM=-1.0", "0 or more"),
    ("SOLVER.STEPS=(1,1)", "each after the one before"),
    ("SOLVER.STEPS=(0,1)", "iterations above 0"),
    ("SOLVER.BIAS_LR_FACTOR=-1.0", "0 or more"),
    ("SOLVER.WARMUP_FACTOR=-1.0", "0 or more"),
    ("SOLVER.CHECKPOINT_PERIOD=-1", "1 or more"),
    ("MODEL.DEVICE=meta", "use cuda or cpu"),
    ("MODEL.MASK_ON=maybe", "expected a value such as False"),
    ("CVPLUGINS.HOOKS=[{'type': 'NonFiniteGuardHook', 'find_layer': 'maybe'}]", "expected True or False"),
    ("CVPLUGINS.HOOKS=[{'type': 'EMAHook', 'momentum': 'x'}]", "momentum is 'x'; expected a number"),
    ("MODEL.ROI_HEADS.SCORE_THRESH_TEST=nan", "such as 0.05"),
    ("MODEL.ROI_HEADS.NMS_THRESH_TEST=-1.0", "0 to 1"),
    ("MODEL.ROI_HEADS.POSITIVE_FRACTION=2.0", "0 to 1"),
    ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE=-5", "1 or more"),
    ("MODEL.ROI_HEADS.IOU_THRESHOLDS=[0.7, 0.3]", "ascending"),
    ("MODEL.ROI_HEADS.IOU_THRESHOLDS=[1.5]", "nothing would be an object"),
    ("MODEL.ROI_HEADS.IOU_LABELS=[1, 0]", "has to be 1"),
    ("MODEL.RPN.IOU_THRESHOLDS=[0.7, 0.3]", "ascending"),
    ("MODEL.RPN.BBOX_REG_WEIGHTS=(0.0, 1.0, 1.0, 1.0)", "may be 0"),
    ("MODEL.RPN.LOSS_WEIGHT=-1.0", "0 or more"),
    ("MODEL.RPN.PRE_NMS_TOPK_TRAIN=-1", "1 or more"),
    ("MODEL.FPN.OUT_CHANNELS=0", "1 or more"),
    ("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION=0", "1 or more"),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS=[[-1.0]]", "above 0"),
    ("MODEL.ANCHOR_GENERATOR.SIZES=[[-16, 32]]", "above 0"),
    ("MODEL.PIXEL_STD=[0.0, 0.0, 0.0]", "divided"),
    ("TEST.DETECTIONS_PER_IMAGE=0", "1 or more"),
    ("TEST.PRECISE_BN.NUM_ITER=0", "1 or more"),
]


@pytest.mark.parametrize(("option", "said"), REFUSED)
def test_values_that_train_wrongly(refused, config, option, said):
    refused([option.partition("=")[0].rpartition(".")[2], said], "train", config, "--cfg-options", option)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["INPUT.CROP.SIZE=[2.0, 2.0]", "INPUT.CROP.ENABLED=True"], "shares of 0 to 1"),
        (["INPUT.CROP.SIZE=[0.5, 0.5]", "INPUT.CROP.ENABLED=True", "INPUT.CROP.TYPE=absolute"], "needs pixels"),
        (["INPUT.MIN_SIZE_TRAIN=(64, 32)", "INPUT.MIN_SIZE_TRAIN_SAMPLING=range"], "the smallest and the largest"),
        (["SOLVER.BASE_LR_END=-1.0", "SOLVER.LR_SCHEDULER_NAME=WarmupCosineLR"], "0 to SOLVER.BASE_LR"),
    ],
)
def test_values_that_do_not_fit_each_other(refused, config, options, said):
    key, _, value = options[0].partition("=")
    refused([f"{key} = {value}", said], "train", config, "--cfg-options", *options)


def test_a_retinanet_has_no_number_for_all_detections(refused, retinanet):
    """Oracle: detectron2/modeling/meta_arch/retinanet.py cuts the list by it, so that -1 loses the last one."""
    option = "TEST.DETECTIONS_PER_IMAGE=-1"
    refused("RetinaNet takes so many", "train", retinanet, "--cfg-options", option, "--dry-run")


def test_what_trains_correctly_passes(tool, config):
    """Oracle: Detectron2's code: steps beyond the end are ignored, -1 is all detections or no evaluation, and so on."""
    options = ["SOLVER.STEPS=(1, 500)", "TEST.DETECTIONS_PER_IMAGE=-1", "TEST.EVAL_PERIOD=-1", "DATASETS.TEST=()"]
    options += ["MODEL.RPN.SMOOTH_L1_BETA=-1.0", "MODEL.RPN.IOU_THRESHOLDS=[0.3, 0.3]", "SOLVER.BASE_LR_END=-1.0"]
    options += ["INPUT.CROP.ENABLED=True", "INPUT.CROP.SIZE=[0.0, 1.0]", "MODEL.ROI_HEADS.NMS_THRESH_TEST=1.0"]
    code, _, errors = tool("train", config, "--cfg-options", *options)
    assert (code, errors) == (0, [])
