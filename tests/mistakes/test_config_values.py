"""A value that something built from the config refuses: one line with the key's path, nothing written; by the key."""

import re

import pytest
from devkits import small_devkit

CONFIG = "tests/integration/tiny.py"  # the config of the sample with a smaller model
DETECTRON2 = "configs/detectron2/voc_faster_rcnn_sample.yaml"
TRANSFORM = "train_dataloader.dataset.dataset.datasets.0.pipeline.2"
BBOX_HEAD = "model.roi_head.bbox_head"


@pytest.fixture(scope="module")
def devkit(sample, tmp_path_factory):
    return small_devkit(sample, tmp_path_factory.mktemp("values") / "VOCdevkit")


def train(devkit, *options):
    return ("train", CONFIG, "--cfg-options", f"data_root={devkit}", *options)


def train_in_detectron2(devkit, *options):
    return ("train", DETECTRON2, "--cfg-options", f"CVPLUGINS.DATA.ROOT={devkit}", *options)


# The option, and what the line says beside the option itself.
REFUSED = [
    ("optim_wrapper.optimizer.lr=fast", "AdamW"),
    ("optim_wrapper.optimizer.lr=-1", "0 or more"),
    ("optim_wrapper.optimizer.lr=nan", "expected a number"),
    ("optim_wrapper.optimizer.foo=1", "AdamW has no option foo; it has params, lr"),
    ("optim_wrapper.optimizer.type=AdamWW", "did you mean AdamW"),
    ("optim_wrapper.optimizer.type=5", "expected a name"),
    ("optim_wrapper.clip_grad.max_norm=0", "above 0"),
    ("param_scheduler.0.start_factor=7", "between 0 and 1"),
    ("param_scheduler.1.milestones=x", "expected a list"),
    ("param_scheduler.0.type=LinarLR", "did you mean LinearLR?"),
    ("train_cfg.max_epoch=3", "did you mean max_epochs?"),
    ("train_cfg.max_epochs=0", "1 or more"),
    ("train_cfg.val_interval=0", "1 or more"),
    ("train_dataloader.batch_size=0", "positive"),
    ("train_dataloader.num_workers=-1", "non-negative"),
    ("train_dataloader.sampler.shufle=True", "did you mean shuffle?"),
    ("val_evaluator.rule=coco", "did you mean rules?"),
    ("val_evaluator.type=5", "expected a name"),
    ("custom_hooks.2.intervall=5", "did you mean interval?"),
    ("default_hooks.checkpoint.interval=0", "1 or more"),
    ("default_hooks.logger.intervl=1", "did you mean interval?"),
    ("log_processor.window=4", "did you mean window_size?"),
    ("log_level=LOUD", "INFO"),
    ("visualizer.type=Foo", "is not in the mmdet::visualizer registry"),
    ("randomness.seed=-1", "between 0 and 2**32 - 1"),
    ("randomness.sed=seed", "did you mean seed?"),
    ("model.backbone.depth=19", "invalid depth 19"),
    ("model.backbone.depht=18", "did you mean depth?"),
    ("model.backbone=5", "should be a dict"),
    ("model.type=5", "expected a name"),
    (f"{BBOX_HEAD}.loss_cls.gama=2", "CrossEntropyLoss has no option gama"),
    (f"{TRANSFORM}.scal=5", "did you mean scale?"),
    ("train_dataloader=5", "expected a dict"),
    ("train_dataloader.dataset=5", "expected a dict"),
    ("train_dataloader.dataset.type=5", "expected a name"),
    ("val_dataloader.dataset.ann_file=5", "expected a path"),
    ("optim_wrapper.constructor=Foo", "optimizer constructor registry"),
]


@pytest.mark.openmmlab
@pytest.mark.parametrize(("option", "said"), REFUSED)
def test_a_refused_value_is_named_with_its_path(refused, devkit, option, said):
    key, _, value = option.partition("=")
    refused([key, value, said], *train(devkit, option), "--dry-run")


@pytest.mark.openmmlab
@pytest.mark.parametrize("option", ["optim_wrapper.optimizer.lr=fast", "val_evaluator.rule=coco", "custom_hooks.0.x=1"])
def test_a_training_refuses_it_before_it_writes_anything(refused, devkit, option):
    refused(option.partition("=")[0], *train(devkit, option))


@pytest.mark.openmmlab
@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("trian_cfg.max_epochs=3", "did you mean train_cfg?"),
        ("skip_brokn=True", "did you mean skip_broken?"),
        ("default_hooks.chekpoint.interval=2", "did you mean default_hooks.checkpoint?"),
        ("env_cfg.cudnn_benchmrk=True", "did you mean env_cfg.cudnn_benchmark?"),
        ("model.test_cfg.rcnn.score_th=0.1", "did you mean model.test_cfg.rcnn.score_thr?"),
        ("optimizer.lr=0.1", "use optim_wrapper.optimizer"),
        ("model..depth=3", "empty part"),
        ("model.neck=[1,2", "brackets"),
    ],
)
def test_a_key_that_nothing_would_read(refused, devkit, option, meant):
    refused([option.partition("=")[0], meant], *train(devkit, option), "--dry-run")


@pytest.mark.openmmlab
def test_a_misspelt_key_in_a_file(refused, tool, root, tmp_path, devkit):
    path = tmp_path / "own.py"
    path.write_text(f"_base_ = '{root / CONFIG}'\ntrian_cfg = dict(max_epochs=3)\n")
    refused(["nothing reads trian_cfg", "did you mean train_cfg?"], "train", path, "--dry-run")
    path.write_text(f"_base_ = '{root / CONFIG}'\ntrian_cfg = dict(max_epochs=3)\ntrain_cfg = trian_cfg\n")
    # Used as a variable it is legal; what is wrong then is found later.
    refused("model.type", "train", path, "--dry-run", "--cfg-options", "model.type=5")


@pytest.mark.openmmlab
def test_a_variable_of_the_file_changes_nothing_and_that_is_said(refused, devkit, caplog):
    with caplog.at_level("WARNING", logger="cvplugins"):
        refused("model.type", *train(devkit, "max_epochs=3", "model.type=5"), "--dry-run")
    assert "a variable of the file" in caplog.text
    assert "train_cfg.max_epochs" in caplog.text


@pytest.mark.openmmlab
def test_a_transform_that_fails_at_its_first_image_is_found_by_the_dry_run(refused, devkit):
    refused(
        ["train_dataloader cannot load a batch", TRANSFORM, "Scale must be"],
        *train(devkit, f"{TRANSFORM}.scale=big"),
        "--dry-run",
    )


@pytest.mark.openmmlab
def test_a_model_that_fails_at_its_first_batch_is_found_by_the_dry_run(refused, devkit):
    """The RPN's 64 channels meet a head of 32; the constructors know nothing of each other."""
    refused(
        ["one batch of train_dataloader does not go through the model", "model.rpn_head", "--traceback"],
        *train(devkit, "model.rpn_head.in_channels=32"),
        "--dry-run",
    )


@pytest.mark.openmmlab
def test_a_set_without_any_object(refused, sample, tmp_path):
    devkit = small_devkit(sample, tmp_path / "VOCdevkit")
    for path in devkit.glob("*/Annotations/*.xml"):
        path.write_text(re.sub(r"<object>.*</object>", "", path.read_text(), flags=re.DOTALL))
    refused(["train_dataloader", "object"], *train(devkit), "--dry-run")


@pytest.mark.openmmlab
def test_a_broken_set_is_left_out_and_a_dry_run_writes_no_list(tool, sample, tmp_path):
    devkit = small_devkit(sample, tmp_path / "VOCdevkit")
    image = next((devkit / "VOC2007" / "JPEGImages").iterdir())
    image.write_bytes(image.read_bytes()[:-200])
    code, _, errors = tool(*train(devkit, "skip_broken=True", "train_dataloader.batch_size=1"), "--dry-run")
    assert (code, errors) == (0, [])
    assert not (tmp_path / "work").exists()


REFUSED_BY_DETECTRON2 = [
    ("SOLVER.IMS_PER_BATCH=0", "1 or more"),
    ("SOLVER.IMS_PER_BATCH=-1", "1 or more"),
    ("SOLVER.BASE_LR=fast", "expected a value such as 0.0005"),
    ("SOLVER.BASE_LR=-1.0", "0 or more"),
    ("SOLVER.MAX_ITER=0", "1 or more"),
    ("SOLVER.CHECKPOINT_PERIOD=0", "1 or more"),
    ("SOLVER.LR_SCHEDULER_NAME=WarmupCosinLR", "did you mean WarmupCosineLR"),
    ("SOLVER.WARMUP_METHOD=lin", "linear"),
    ("SOLVER.STEPS=(300, 200)", "each after the one before"),
    ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE=nrom", "did you mean norm?"),
    ("SOLVER.MAX_ITR=1", "did you mean SOLVER.MAX_ITER"),
    ("DATALOADER.NUM_WORKERS=-1", "0 or more"),
    ("DATALOADER.SAMPLER_TRAIN=TraningSampler", "did you mean TrainingSampler"),
    ("INPUT.FORMAT=BRG", "use BGR, RGB"),
    ("INPUT.MIN_SIZE_TRAIN=(0,)", "1 or more"),
    ("MODEL.DEVICE=cud", "use cuda or cpu"),
    ("MODEL.META_ARCHITECTURE=GeneralizdRCNN", "did you mean GeneralizedRCNN?"),
    ("MODEL.ANCHOR_GENERATOR.SIZES=[[32], [64]]", "number of input features is 5"),
    ("MODEL.RESNETS.NORM=BNN", "BNN"),
    ("MODEL.RESNETS.DEPTH=51", "51"),
    ("MODEL.ROI_BOX_HEAD.POOLER_TYPE=ROIAlin", "Unknown pooler type"),
    ("MODEL.RPN.IOU_THRESHOLDS=[0.3]", "len(labels)"),
    ("MODEL.PIXEL_MEAN=[1.0]", "3 channels"),
    ("SEED=99999999999", "at most 4294967295"),
    ("SOLVER..X=1", "empty part"),
]


@pytest.mark.detectron2
@pytest.mark.parametrize(("option", "said"), REFUSED_BY_DETECTRON2)
@pytest.mark.parametrize("dry_run", [["--dry-run"], []])
def test_a_value_that_detectron2_refuses_is_named_with_its_key(refused, devkit, option, said, dry_run):
    refused([option.partition("=")[0], said], *train_in_detectron2(devkit, option), *dry_run)


@pytest.mark.detectron2
def test_a_loss_that_detectron2_finds_at_the_first_batch(refused, devkit):
    parts = ["a batch of DATASETS.TRAIN does not go through the model", "dense box regression loss type 'gio'"]
    option = "MODEL.RPN.BBOX_REG_LOSS_TYPE=gio"
    refused(parts, *train_in_detectron2(devkit, option, "SOLVER.IMS_PER_BATCH=1"), "--dry-run")


@pytest.mark.detectron2
def test_a_set_without_any_object_in_detectron2(refused, sample, tmp_path):
    devkit = small_devkit(sample, tmp_path / "VOCdevkit")
    for path in devkit.glob("*/Annotations/*.xml"):
        path.write_text(re.sub(r"<object>.*</object>", "", path.read_text(), flags=re.DOTALL))
    refused(["DATASETS.TRAIN", "object"], *train_in_detectron2(devkit), "--dry-run")


@pytest.mark.detectron2
def test_the_key_is_named_where_a_file_gives_it(refused, root, tmp_path, devkit):
    path = tmp_path / "own.yaml"
    path.write_text(f"_BASE_: {root / DETECTRON2}\nMODEL: {{RESNETS: {{DEPTH: 51}}}}\n")
    refused("MODEL.RESNETS.DEPTH = 51", "train", path, "--cfg-options", f"CVPLUGINS.DATA.ROOT={devkit}")


@pytest.mark.openmmlab
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("default_scope=5", "default_scope = 5: expected a name"),
        ("default_scope=mmdett", "default_scope = 'mmdett': there is no such package; did you mean mmdet?"),
        ("optim_wrapper.clip_grad.max_nrm=1", "clip_grad_norm_ has no such option; did you mean max_norm?"),
        ("log_processor.window_size=0", "log_processor.window_size = 0: expected a whole number, 1 or more"),
        ("train_cfg.val_interval=1.5", "train_cfg.val_interval = 1.5: expected a whole number"),
        ("train_cfg.max_epochs=True", "train_cfg.max_epochs = True: expected a whole number"),
        ("default_hooks.checkpoint.interval=two", "default_hooks.checkpoint.interval = 'two': expected a whole number"),
        ("default_hooks.checkpoint.filename_tmpl=7", "filename_tmpl = 7: expected a name with {} for the number"),
        ("default_hooks.checkpoint.filename_tmpl=fixed.pth", "each checkpoint would overwrite the one before"),
        ("train_dataloader.dataset.pipeline=5", "expected a list of transforms"),
    ],
)
def test_values_on_which_a_run_would_die_late(root, option, message):
    """Without the frameworks' work: the loaded config alone is looked at."""
    from cvplugins.errors import UserError
    from cvplugins.openmmlab.run.config import load_config
    from cvplugins.openmmlab.run.options import parse_options
    from cvplugins.openmmlab.run.values import check_values

    cfg = load_config(root / "tests" / "integration" / "tiny.py", {"optim_wrapper.clip_grad": dict(max_norm=1.0)})
    cfg.merge_from_dict(parse_options([option]))
    with pytest.raises(UserError) as caught:
        check_values(cfg)
    assert message in str(caught.value)


@pytest.mark.openmmlab
def test_whole_numbers_written_as_fractions_pass_as_in_the_loops(root):
    from cvplugins.openmmlab.run.config import load_config
    from cvplugins.openmmlab.run.values import check_values

    options = {"train_cfg.max_epochs": 12.0, "train_cfg.val_interval": 2.0}
    check_values(load_config(root / "tests" / "integration" / "tiny.py", options))
