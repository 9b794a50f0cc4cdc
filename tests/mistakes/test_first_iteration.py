"""What only the first iteration of a Detectron2 run would show: one line before the run, nothing written or lost."""

import logging
import re

import pytest
import torch
from devkits import first_id, small_devkit, split_file
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


def written(folder):
    """What a run wrote, but for its log, to which the loggers of this process go on writing."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "log.txt"}


def test_resuming_is_refused_alike_and_loses_nothing(tool, config, tmp_path):
    work = tmp_path / "work"
    assert tool("train", config, "--cfg-options", "TEST.EVAL_PERIOD=0", "DATASETS.TEST=()")[0] == 0
    before = written(work)
    options = ["--cfg-options", "MODEL.RPN.BBOX_REG_LOSS_TYPE=gio", "SOLVER.MAX_ITER=3"]
    for given in (["--resume"], ["--overwrite"], ["--resume", "--dry-run"]):
        code, _, errors = tool("train", config, *given, *options)
        assert (code, len(errors)) == (2, 1)
        assert FAIL in errors[0]
    assert written(work) == before


@pytest.mark.parametrize("place", ["weights", "moments"])
def test_a_checkpoint_with_nan_is_named_with_the_tensor(tool, config, tmp_path, place):
    """Oracle: the numbers that were put there."""
    from cvplugins.detectron2 import load_config, register_datasets
    from cvplugins.detectron2.run.trainer import CvpluginsTrainer

    cfg = load_config(config, {"OUTPUT_DIR": str(tmp_path / "work")})
    register_datasets(cfg)
    (tmp_path / "work").mkdir()
    trainer = CvpluginsTrainer(cfg)
    first = next(iter(trainer.optimizer.param_groups[0]["params"]))
    moments = torch.full_like(first, torch.inf if place == "moments" else 0)
    trainer.optimizer.state[first]["momentum_buffer"] = moments
    name = "backbone.fpn_lateral3.weight"
    weight = trainer.model.get_parameter(name)
    if place == "weights":
        weight.data[0] = torch.nan
    trainer.checkpointer.save("model_0000000", iteration=0)
    path = tmp_path / "work" / "model_0000000.pth"
    if place == "weights":
        said = f"{path}: {weight[0].numel()} of the {weight.numel()} numbers of {name} are NaN or infinite"
        options = [f"MODEL.WEIGHTS={path}"]
        runs = [["train", config, "--overwrite", "--cfg-options", *options], ["test", config, path]]
    else:
        said = f"{path}: {first.numel()} of the {first.numel()} numbers of trainer._trainer.optimizer['state'][0]"
        runs = []
    before = path.read_bytes()
    for given in (*runs, ["train", config, "--resume"], ["train", config, "--resume", path, "--dry-run"]):
        code, _, errors = tool(*given)
        assert (code, len(errors)) == (2, 1)
        assert said in errors[0]
    assert path.read_bytes() == before


REFUSED = [
    ("VERSION=9", "only 2 is read"),
    ("SOLVER.MOMENTUM=2.0", "expected below 1"),
    ("SOLVER.MOMENTUM=-1.0", "0 or more"),
    ("SOLVER.STEPS=(0,)", "iterations above 0"),
    ("SOLVER.STEPS=(1,)", "the run ends at SOLVER.MAX_ITER = 1"),
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
        (["SOLVER.STEPS=(3, 3)", "SOLVER.MAX_ITER=9"], "each after the one before"),
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
    options = ["SOLVER.STEPS=(400, 500)", "TEST.DETECTIONS_PER_IMAGE=-1", "TEST.EVAL_PERIOD=-1", "DATASETS.TEST=()"]
    options += ["MODEL.RPN.SMOOTH_L1_BETA=-1.0", "MODEL.RPN.IOU_THRESHOLDS=[0.3, 0.3]", "SOLVER.BASE_LR_END=-1.0"]
    options += ["INPUT.CROP.ENABLED=True", "INPUT.CROP.SIZE=[0.8, 1.0]", "MODEL.ROI_HEADS.NMS_THRESH_TEST=1.0"]
    code, _, errors = tool("train", config, "--cfg-options", *options)
    assert (code, errors) == (0, [])


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_damaged_between_start_and_end(tool, config, devkit, monkeypatch, tmp_path, workers):
    """Oracle: Pillow, which reads the header and not the pixels; the first batch is not looked at here."""
    monkeypatch.setattr("cvplugins.detectron2.run.launch.trial_training", lambda *arguments, **options: None)
    path = devkit / "VOC2007" / "JPEGImages" / f"{first_id(devkit)}.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + b"\xff\xda\x00\x00" * 50 + whole[-200:])
    options = ["SOLVER.MAX_ITER=8", "DATASETS.TEST=()", f"DATALOADER.NUM_WORKERS={workers}"]
    try:
        code, _, errors = tool("train", config, "--cfg-options", *options)
    finally:
        path.write_bytes(whole)
    assert (code, len(errors)) == (2, 1)
    for said in (f"the training stops: {path} cannot be decoded (", "--dry-run --full", f"in {tmp_path / 'work'}"):
        assert said in errors[0]


@pytest.mark.parametrize("name", ["last_checkpoint", "metrics.json"])
def test_a_folder_where_the_run_writes_a_file(tool, config, tmp_path, name):
    (tmp_path / "work" / name).mkdir(parents=True)
    for options in ([], ["--resume"], ["--dry-run"]):
        code, _, errors = tool("train", config, *options)
        assert (code, len(errors)) == (2, 1)
        assert f"{name} is a folder, and the run writes a file of this name" in errors[0]


def test_checkpoints_of_another_framework(tool, config, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": {}, "optimizer": {}}, work / "epoch_1.pth")
    (work / "last_checkpoint").write_text("epoch_1.pth")
    for given, said in (
        (["train", config, "--resume"], "is of no run of Detectron2: it has no model; it has state_dict, meta"),
        (["test", config, work / "epoch_1.pth"], "its weights are under state_dict"),
    ):
        code, _, errors = tool(*given)
        assert (code, len(errors)) == (2, 1)
        assert said in errors[0]
    assert sorted(path.name for path in work.iterdir()) == ["epoch_1.pth", "last_checkpoint"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["MODEL.FPN.OUT_CHANNELS=16"], "backbone.fpn_lateral3.weight is (8, "),
        (
            ["MODEL.ROI_HEADS.NUM_CLASSES=1", "CVPLUGINS.DATA.CLASSES=('chair',)"],
            "cls_score.weight is (21, 16), not (2,",
        ),
    ],
)
def test_a_checkpoint_of_other_sizes(tool, config, tmp_path, changes, said):
    """Oracle: the shapes of the two models, in place of "is missing"."""
    from cvplugins.detectron2 import load_config
    from cvplugins.detectron2.run.trainer import CvpluginsTrainer

    model = CvpluginsTrainer.build_model(load_config(config))
    torch.save({"model": model.state_dict()}, tmp_path / "other.pth")
    code, _, errors = tool("test", config, tmp_path / "other.pth", "--cfg-options", *changes)
    assert (code, len(errors)) == (2, 1)
    assert said in errors[0]


def test_a_test_set_without_any_object(tool, sample, tmp_path, caplog):
    devkit = small_devkit(sample, tmp_path / "VOCdevkit")
    for image in split_file(devkit, "VOC2007", "test").read_text().split():
        path = devkit / "VOC2007" / "Annotations" / f"{image}.xml"
        path.write_text(re.sub(r"<object>.*</object>", "", path.read_text(), flags=re.DOTALL))
    config = write_config(tmp_path / "small.yaml", devkit)
    with caplog.at_level(logging.WARNING, logger="cvplugins"):
        assert tool("train", config, "--dry-run")[0] == 0
    assert "DATASETS.TEST: cvplugins_voc_2007_test has no objects of its classes: its scores will be NaN" in caplog.text
