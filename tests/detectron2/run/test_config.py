"""Config files: those of the project against the zoo's, options of the command line, and broken files."""

import pytest
from small_detectron2_run import differences

pytestmark = pytest.mark.detectron2

FOLDER = "configs/detectron2"
OURS = ("cvplugins_voc_2007_trainval", "cvplugins_voc_2012_trainval"), ("cvplugins_voc_2007_test",)


@pytest.mark.parametrize("model", ["R_50_C4", "R_50_FPN"])
def test_what_differs_from_the_zoo(root, model):
    """Oracle: Detectron2's own file, read by Detectron2; only the datasets' names and what ours add differ."""
    from detectron2.config import get_cfg

    from cvplugins.detectron2 import add_cvplugins_config, load_config, validate_cvplugins_config
    from cvplugins.detectron2.run.config import zoo_folder

    zoo = get_cfg()
    add_cvplugins_config(zoo)
    zoo.merge_from_file(str(zoo_folder() / "PascalVOC-Detection" / f"faster_rcnn_{model}.yaml"))
    cfg = load_config(root / FOLDER / f"voc_faster_rcnn_{model}.yaml")
    validate_cvplugins_config(cfg)
    assert differences(cfg, zoo) == {
        "DATASETS.TRAIN": OURS[0],
        "DATASETS.TEST": OURS[1],
        "CVPLUGINS.TRAIN.BASE_BATCH_SIZE": 16,
        # Detectron2 evaluates once, at the end.
        "TEST.EVAL_PERIOD": 3000,
        "SOLVER.CHECKPOINT_PERIOD": 3000,
        "CVPLUGINS.HOOKS": [{"type": "GradientHealthHook"}, {"type": "BestCheckpointHook", "monitor": "bbox/AP50"}],
        "CVPLUGINS.NORM.rules": [{"to": "SyncBN", "frozen": "keep"}],
    }
    assert cfg.SOLVER.MAX_ITER == 18000


def test_the_sample_is_the_fpn_model_shrunk(root):
    from cvplugins.detectron2 import load_config, register_voc, validate_cvplugins_config
    from cvplugins.detectron2.data.checks import check_data

    cfg = load_config(
        root / FOLDER / "voc_faster_rcnn_sample.yaml", {"CVPLUGINS.DATA.ROOT": str(root / "data/sample/VOCdevkit")}
    )
    validate_cvplugins_config(cfg)
    register_voc(cfg)
    check_data(cfg, (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))
    base = load_config(root / FOLDER / "voc_faster_rcnn_R_50_FPN.yaml")
    changed = differences(cfg, base)
    assert not {
        name for name in changed if name.startswith(("DATASETS", "MODEL.META", "MODEL.ANCHOR", "MODEL.RPN.IOU"))
    }
    assert cfg.MODEL.WEIGHTS == ""


def test_options_of_the_command_line(root):
    from cvplugins.detectron2 import load_config
    from cvplugins.detectron2.run.options import parse_options

    tokens = ["SOLVER.MAX_ITER=10", "SOLVER.BASE_LR", "0.01", "CVPLUGINS.LOSSES.CLS.type=FocalLoss"]
    tokens += ["CVPLUGINS.LOSSES.CLS.gamma=1.5", "DATASETS.TEST", "('a', 'b')", "OUTPUT_DIR=a=b"]
    cfg = load_config(root / FOLDER / "voc_faster_rcnn_R_50_C4.yaml", parse_options(tokens))
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR, cfg.DATASETS.TEST) == (10, 0.01, ("a", "b"))
    assert cfg.CVPLUGINS.LOSSES.CLS == {"type": "FocalLoss", "gamma": 1.5}
    assert cfg.OUTPUT_DIR == "a=b"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("MODEL: [", [], "config .*broken.yaml is no YAML: .*line 1"),
        ("- a", [], "config .*broken.yaml: expected keys and values"),
        ("_BASE_: no.yaml", [], "config .*broken.yaml: its base .*no.yaml does not exist"),
        ("_BASE_: detectron2::COCO/no.yaml", [], "config .*broken.yaml cannot be read: .*no.yaml"),
        ("SOLVER: {MAXITER: 3}", [], "broken.yaml: there is no key SOLVER.MAXITER; did you mean SOLVER.MAX_ITER"),
        ("SOLVER: {MAX_ITER: many}", [], "broken.yaml: .*SOLVER.MAX_ITER"),
        ("CVPLUGINS: {DATA: {ROOTS: a}}", [], "no key CVPLUGINS.DATA.ROOTS; did you mean CVPLUGINS.DATA.ROOT"),
        ("SEED: !!python/object/apply:os.getpid []", [], "broken.yaml: .*tags that run code are not read"),
        ("VERSION: 1", [], "has VERSION 1; only 2 is read"),
        ("SEED: 1", ["SOLVER.MAX_ITERS=3"], "--cfg-options: there is no key SOLVER.MAX_ITERS; did you mean"),
        ("SEED: 1", ["SEED"], "--cfg-options SEED: expected KEY=VALUE or KEY VALUE"),
        ("SEED: 1", ["SEED.A=1"], "--cfg-options"),
    ],
)
def test_mistakes_in_files_and_options(tmp_path, text, options, message):
    from cvplugins.detectron2 import load_config
    from cvplugins.detectron2.run.options import parse_options
    from cvplugins.errors import UserError

    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(path, parse_options(options))


def test_a_missing_file_is_named_with_the_closest_one(root):
    from cvplugins.detectron2 import load_config
    from cvplugins.errors import UserError

    with pytest.raises(UserError, match=r"does not exist; did you mean .*voc_faster_rcnn_sample.yaml"):
        load_config(root / FOLDER / "voc_faster_rcnn_samples.yaml")


def test_a_config_is_read_by_its_name(root, tmp_path, monkeypatch):
    """Oracle: the same file by its path."""
    from cvplugins.detectron2 import load_config

    monkeypatch.chdir(tmp_path)
    expected = load_config(root / FOLDER / "voc_faster_rcnn_sample.yaml")
    assert load_config("voc_faster_rcnn_sample") == load_config("detectron2/voc_faster_rcnn_sample") == expected


@pytest.mark.parametrize("name", ["voc_faster_rcnn_R_50_C4", "voc_faster_rcnn_sample"])
def test_a_config_of_ones_own_inherits_by_name(tmp_path, name):
    from cvplugins.detectron2 import load_config

    path = tmp_path / "mine.yaml"
    path.write_text(f"_BASE_: cvplugins::detectron2/{name}.yaml\nSOLVER: {{MAX_ITER: 7}}\n")
    cfg = load_config(path)
    assert differences(cfg, load_config(name)) == {"SOLVER.MAX_ITER": 7}


def test_a_script_of_ones_own_reads_a_config_with_one_call(root):
    """Detectron2's own builders take it: its model, and its loader of the registered data."""
    from detectron2.data import get_detection_dataset_dicts
    from detectron2.modeling import build_model

    from cvplugins.detectron2 import load_config, register_datasets

    data = {"CVPLUGINS.DATA.ROOT": str(root / "data/sample/VOCdevkit"), "MODEL.DEVICE": "cpu"}
    cfg = load_config("voc_faster_rcnn_sample", data)
    register_datasets(cfg)
    assert len(get_detection_dataset_dicts(cfg.DATASETS.TEST, filter_empty=False)) == 91
    model = build_model(cfg)
    assert model.roi_heads.num_classes == 20
    assert model.backbone.fpn_output2.out_channels == 64


@pytest.mark.mask2former
@pytest.mark.parametrize("name", ["ade20k_mask2former_R50", "ade20k_mask2former_swin_L", "ade20k_mask2former_sample"])
def test_a_config_of_mask2former_has_every_key_of_the_project(name):
    """Oracle: the keys that the project itself adds."""
    from detectron2.config import get_cfg

    from cvplugins.detectron2 import add_cvplugins_config, add_mask2former_config, load_config

    project = get_cfg()
    add_cvplugins_config(project)
    add_mask2former_config(project)
    assert leaf_names(load_config(name)) == leaf_names(project)


def leaf_names(node, prefix=""):
    from detectron2.config import CfgNode

    below = (
        leaf_names(each, f"{prefix}{key}.") if isinstance(each, CfgNode) else {prefix + key}
        for key, each in node.items()
    )
    return set().union(*below)
