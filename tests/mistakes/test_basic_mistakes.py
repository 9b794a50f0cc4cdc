"""Every mistake of a user: one line, exit code 2, before any work; the tools' own ``main`` in this process."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from devkits import first_id, small_devkit, split_file
from scenes import first_image, label_map, small_scenes

pytestmark = pytest.mark.openmmlab

CONFIG = "configs/voc_faster_rcnn_sample.py"


@pytest.fixture
def devkit(sample, tmp_path):
    return small_devkit(sample, tmp_path / "VOCdevkit")


def train(devkit, *options):
    return ("train", CONFIG, "--cfg-options", f"data_root={devkit}", *options)


def test_whole_data_passes(tool, devkit):
    assert tool(*train(devkit), "--dry-run") == (0, [f"config, plugins and data of {CONFIG} are fine"], [])


def test_missing_config(refused):
    wrong = "configs/voc_faster_rcn.py"
    refused([f"{wrong} does not exist", "did you mean configs/voc_faster_rcnn.py?"], "train", wrong)


def test_broken_config(refused, tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("model = dict(\n")
    refused([str(path), "line 1", "was never closed"], "train", path)


def test_unknown_plugin(refused, devkit):
    option = "val_evaluator.type=cvplugins.VOCDetectionMetrics"
    refused(["cvplugins.VOCDetectionMetrics", "did you mean VOCDetectionMetric"], *train(devkit, option))


def test_unknown_type_of_another_package(tool, devkit):
    code, _, errors = tool(*train(devkit, "model.type=FasterRCNNN"))
    assert code == 2
    assert "FasterRCNNN is not in the mmdet::model registry" in errors[0]


def test_missing_data(refused, tmp_path):
    wanted = tmp_path / "nothing"
    parts = [f"{wanted}/VOC2007", "cvplugins data get voc0712", "configs/voc_faster_rcnn_sample.py"]
    refused(parts, *train(wanted))


def test_split_that_names_missing_images(refused, devkit):
    with split_file(devkit, "VOC2012", "trainval").open("a") as file:
        file.write("2012_999999\n")
    refused(["VOC2012 trainval", "2012_999999"], *train(devkit))


def test_malformed_xml(refused, devkit):
    path = devkit / "VOC2007" / "Annotations" / f"{first_id(devkit)}.xml"
    text = path.read_text()
    path.write_text(text.replace("</annotation>", "</anotation>"))
    refused(
        [str(path), f"line {text[: text.index('</annotation>')].count(chr(10)) + 1}: malformed XML"], *train(devkit)
    )


def test_class_outside_the_20_is_left_out(tool, devkit, caplog):
    path = devkit / "VOC2007" / "Annotations" / f"{first_id(devkit)}.xml"
    text = path.read_text()
    start, end = text.index("<object>"), text.index("</name>")
    name = text[start:end].rpartition(">")[2]
    path.write_text(text[:start] + text[start:end].replace(name, "unicorn") + text[end:])
    with caplog.at_level("INFO", logger="cvplugins"):
        assert tool(*train(devkit), "--dry-run")[0] == 0
    assert any("VOC2007 trainval: " in each and "unicorn (1)" in each for each in caplog.messages)


def truncate(devkit, image_id, year="VOC2007"):
    path = devkit / year / "JPEGImages" / f"{image_id}.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    return path


def test_truncated_jpeg(refused, devkit):
    path = truncate(devkit, first_id(devkit))
    refused([str(path), "truncated JPEG", "skip_broken=True"], *train(devkit))


def test_broken_images_can_be_left_out(root, devkit, tmp_path):
    from cvplugins.openmmlab.data.checks import check_data
    from cvplugins.openmmlab.run.config import load_config

    image_id = first_id(devkit)
    truncate(devkit, image_id)
    config = load_config(root / CONFIG, {"data_root": str(devkit), "skip_broken": True})
    config.work_dir = str(tmp_path / "work")
    check_data(config, ("train_dataloader",))
    kept = (tmp_path / "work" / "whole_images" / "VOC2007_trainval.txt").read_text().split()
    assert kept == split_file(devkit, "VOC2007", "trainval").read_text().split()[1:]


def test_missing_checkpoint(refused, tmp_path):
    missing = tmp_path / "none.pth"
    refused(f"checkpoint {missing} does not exist", "test", CONFIG, missing)
    refused(f"checkpoint {missing} does not exist", "train", CONFIG, "--resume", missing)


def test_checkpoint_that_would_run_code(refused, tmp_path):
    path = tmp_path / "bad.pth"
    torch.save({"state_dict": {}, "hook": os.mkdir}, path)
    refused([str(path), f"{os.mkdir.__module__}.mkdir", "--trust-checkpoint"], "test", CONFIG, path)


def test_checkpoint_of_another_architecture(tool, tmp_path, devkit):
    path = tmp_path / "other.pth"
    torch.save({"state_dict": {"backbone.conv1.weight": torch.zeros(64, 3, 3, 3)}}, path)
    code, _, errors = tool("test", CONFIG, path, "--cfg-options", f"data_root={devkit}")
    assert code == 2
    assert "other.pth is of another architecture than the config: backbone.conv1.weight is (64, 3, 3, 3)" in errors[0]


def test_checkpoint_of_another_architecture_is_found_by_the_dry_run(refused, tmp_path, devkit):
    path = tmp_path / "other.pth"
    torch.save({"state_dict": {"backbone.conv1.weight": torch.zeros(64, 3, 3, 3)}}, path)
    refused("is of another architecture", "test", CONFIG, path, "--cfg-options", f"data_root={devkit}", "--dry-run")
    state = {"meta": {"epoch": 1, "iter": 1}, "optimizer": {"state": {}, "param_groups": []}, "param_schedulers": []}
    hub = {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}
    torch.save({**torch.load(path, weights_only=True), **state, "message_hub": hub}, path)
    refused("is of another architecture", *train(devkit), "--resume", path, "--dry-run")


@pytest.mark.parametrize("option", ["val_evaluator.type=VOCMetrics", "train_dataloader.dataset.type=RepeatDatase"])
def test_unknown_type_in_a_loop(tool, devkit, option):
    code, _, errors = tool(*train(devkit, option))
    assert code == 2
    assert option.partition("=")[2] + " is not in the mmdet::" in errors[0]


def test_config_without_a_part(refused, tmp_path):
    path = tmp_path / "part.py"
    path.write_text("test_dataloader = None\ntrain_cfg = dict()\n")
    refused("has no train_dataloader, optim_wrapper", "train", path)
    (tmp_path / "any.pth").touch()
    refused("has no test_dataloader, test_cfg, test_evaluator", "test", path, tmp_path / "any.pth")


def test_classes_of_ones_own(tool, refused, devkit):
    places = [*(f"train_dataloader.dataset.dataset.datasets.{number}" for number in (0, 1)), "val_dataloader.dataset"]
    own = [f"{place}.metainfo.classes=('helmet',)" for place in places]
    refused("label 0 is 'helmet' in train_dataloader.dataset.dataset.datasets.0 (VOCDataset)", *train(devkit, own[0]))
    refused("model.roi_head.bbox_head.num_classes is 20, but", *train(devkit, *own))
    own.append("model.roi_head.bbox_head.num_classes=1")
    refused("no object to learn from of the classes helmet", *train(devkit, *own))
    for path in devkit.rglob("*.xml"):
        path.write_text(re.sub(r"(<object>\s*<name>)\w+", r"\1helmet", path.read_text()))
    code, _, errors = tool(*train(devkit, *own), "--dry-run")
    assert (code, errors) == (0, [])


def test_more_processes_than_gpus(refused, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    refused("3 processes were asked for, but this machine has 2 GPU(s)", "train", CONFIG)


def test_amp_and_slurm_need_a_gpu(refused, monkeypatch, devkit):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused("--amp needs a GPU", *train(devkit), "--amp")
    refused("--launcher slurm needs a GPU", *train(devkit), "--launcher", "slurm")


def test_output_of_an_unknown_kind(refused, tmp_path):
    refused("use a name that ends in .json", "test", CONFIG, "x.pth", "--out", "a.csv")


@pytest.mark.slow
def test_exit_code_of_the_process(root, tmp_path):
    """One mistake as a user meets it: through the shell, in one process and through torchrun's script."""
    python = {"PYTHON": sys.executable, "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    for command in (
        [sys.executable, "tools/train.py", "configs/none.py"],
        ["bash", "tools/dist_train.sh", "configs/none.py", "2"],
        ["bash", "tools/dist_test.sh", "configs/none.py", "none.pth", "2"],
    ):
        finished = subprocess.run(command, cwd=root, env=python, capture_output=True, text=True)
        assert finished.returncode == 2, finished.stderr
        assert "error: config configs/none.py does not exist" in finished.stderr
        assert "Traceback" not in finished.stderr
    for command in (["bash", "tools/dist_train.sh"], ["bash", "tools/dist_train.sh", "configs/none.py", "two"]):
        assert subprocess.run(command, cwd=root, env=python, capture_output=True).returncode == 2


SCENES_CONFIG = "configs/ade20k_mask2former_sample.py"


@pytest.fixture
def few_scenes(scenes, tmp_path):
    return small_scenes(scenes, tmp_path / "ADEChallengeData2016")


def segment(few_scenes, *options):
    return ("train", SCENES_CONFIG, "--cfg-options", f"data_root={few_scenes}", *options)


def change_labels(path, change):
    from PIL import Image

    with Image.open(path) as image:
        labels = np.array(image)
    Image.fromarray(change(labels)).save(path)


def with_one_label_of(value):
    def change(labels):
        labels[3, :5] = value
        return labels

    return change


def test_whole_label_maps_pass(tool, few_scenes):
    done = [f"config, plugins and data of {SCENES_CONFIG} are fine"]
    assert tool(*segment(few_scenes), "--dry-run") == (0, done, [])


def test_missing_scenes(refused, tmp_path):
    wanted = tmp_path / "nothing"
    parts = [f"{wanted}/images/training", "cvplugins data get ade20k", SCENES_CONFIG]
    refused(parts, *segment(wanted))


@pytest.mark.parametrize("split", ["training", "validation"])
def test_annotation_of_another_size_than_its_image(refused, few_scenes, split):
    path = label_map(first_image(few_scenes, split))
    change_labels(path, lambda labels: labels[:, :-1])
    refused([f"{path}: is ", "but its image is"], *segment(few_scenes))


def test_scene_without_annotation(refused, few_scenes):
    path = label_map(first_image(few_scenes))
    path.unlink()
    refused([f"1 of 4 images cannot be used: {path}: does not exist"], *segment(few_scenes))


def test_label_out_of_range(refused, few_scenes):
    path = label_map(first_image(few_scenes))
    change_labels(path, with_one_label_of(151))
    refused([f"{path}: label 151 (5 pixels)", "reduce_zero_label=True", "1 to 150"], *segment(few_scenes))


def test_reduce_zero_label_turned_off(refused, few_scenes):
    option = "train_dataloader.dataset.reduce_zero_label=False"
    refused(["ADE20KDataset: reduce_zero_label=False", "set reduce_zero_label=True"], *segment(few_scenes, option))


def test_reduce_zero_label_that_the_pipeline_contradicts(refused, few_scenes):
    option = "train_dataloader.dataset.pipeline.1.reduce_zero_label=False"
    refused(["reduce_zero_label is True, but False in the LoadAnnotations"], *segment(few_scenes, option))


def test_own_label_maps_with_a_zero_too_many(refused, few_scenes):
    """Four classes counted from 1, and nobody said that 0 is none."""
    for path in (few_scenes / "annotations" / "training").iterdir():
        change_labels(path, lambda labels: labels % 5)
    own = ["type=BaseSegDataset", "img_suffix=.jpg", "seg_map_suffix=.png", "metainfo.classes=('a','b','c','d')"]
    options = [f"{loader}_dataloader.dataset.{each}" for loader in ("train", "val") for each in own]
    options += ["model.decode_head.num_classes=4", "train_dataloader.dataset.pipeline.1.reduce_zero_label=None"]
    parts = ["label 4 (", "With reduce_zero_label=False, 4 classes are the labels 0 to 3", "set reduce_zero_label=True"]
    refused(parts, *segment(few_scenes, *options))


def test_a_large_share_of_zeros_is_doubted(tool, few_scenes, caplog):
    for path in (few_scenes / "annotations" / "training").iterdir():
        change_labels(path, lambda labels: np.where(labels == 3, 0, labels) * (labels < 8))
    with caplog.at_level("WARNING", logger="cvplugins"):
        code, _, errors = tool(*segment(few_scenes), "--dry-run")
    assert (code, errors) == (0, [])
    warned = [record.message for record in caplog.records if "reduce_zero_label" in record.message]
    assert len(warned) == 1
    assert "annotations/training: label 0 is " in warned[0]


def test_model_and_data_of_different_class_counts(refused, few_scenes):
    refused(
        ["model.decode_head.num_classes is 19", "ADE20KDataset has 150 classes"],
        *segment(few_scenes, "model.decode_head.num_classes=19"),
    )
    refused(
        ["loss_cls.class_weight has 3 numbers; 150 classes need 151"],
        *segment(few_scenes, "model.decode_head.loss_cls.class_weight=[1.0,1.0,0.1]"),
    )


def test_unknown_dataset_of_scenes(tool, few_scenes):
    code, _, errors = tool(*segment(few_scenes, "train_dataloader.dataset.type=ADE20KDatase"))
    assert code == 2
    assert "ADE20KDatase is not in the mmseg::dataset registry" in errors[0]


def test_checkpoint_of_another_class_count(refused, few_scenes, tmp_path):
    path = tmp_path / "other.pth"
    weights = {"decode_head.cls_embed.weight": torch.zeros(20, 64)}
    torch.save({"state_dict": weights, "meta": {"dataset_meta": {"classes": ["a"] * 19}}}, path)
    parts = ["decode_head.cls_embed.weight is (20, 64) and should be (151, 64)", "trained on 19 classes"]
    refused(parts, "test", SCENES_CONFIG, path, "--cfg-options", f"data_root={few_scenes}", "--dry-run")


def test_ways_of_testing_are_for_segmentation(refused, devkit, tmp_path):
    path = tmp_path / "any.pth"
    torch.save({"state_dict": {}}, path)
    data = ["--cfg-options", f"data_root={devkit}"]
    refused("--mode, --scales and --flip are for mmseg's models", "test", CONFIG, path, "--flip", *data)
    refused("--label-dir is for mmseg's models", "test", CONFIG, path, "--label-dir", tmp_path / "maps", *data)


@pytest.mark.detectron2
@pytest.mark.parametrize(
    ("option", "answer"),
    [
        (["--flip"], "--scales and --flip are for Mask2Former, not for GeneralizedRCNN"),
        (["--scales", "1.0"], "--scales and --flip are for Mask2Former, not for GeneralizedRCNN"),
        (["--mode", "slide"], "--mode slide is for mmseg's models; those of Detectron2 see images whole"),
        (["--label-dir", "maps"], "--label-dir: GeneralizedRCNN predicts no label maps"),
    ],
)
def test_ways_of_testing_that_a_detector_of_detectron2_lacks(refused, tmp_path, option, answer):
    checkpoint = tmp_path / "a"
    checkpoint.touch()  # one that is missing is said first
    refused(answer, "test", "configs/detectron2/voc_faster_rcnn_sample.yaml", checkpoint, *option)
