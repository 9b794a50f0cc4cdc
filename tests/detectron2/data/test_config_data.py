"""`cvplugins data check CONFIG.yaml`. Oracle: the mistakes made here, and the check before training."""

import json

import pytest
from annotations import write_devkit
from PIL import Image

from cvplugins.cli import main

pytestmark = pytest.mark.detectron2

CONFIG = """_BASE_: cvplugins::detectron2/voc_faster_rcnn_sample.yaml
CVPLUGINS: {{DATA: {{ROOT: {root}, CLASSES: [dog]}}}}
DATASETS: {{TRAIN: ["cvplugins_voc_2007_trainval"], TEST: ["cvplugins_voc_2007_test"]}}
MODEL: {{ROI_HEADS: {{NUM_CLASSES: {classes}}}}}
"""


def test_all_mistakes_of_all_datasets(tmp_path, capsys):
    devkit = write_devkit(tmp_path / "kit", {name: [("dog", (3, 3, 20, 20))] for name in ("a", "b")})
    write_devkit(devkit, {name: [("dog", (3, 3, 20, 20))] for name in ("x", "y")}, "test")
    folder = devkit / "VOC2007"
    (folder / "Annotations" / "a.xml").write_text("<annotation>")
    Image.new("RGB", (9, 9)).save(folder / "JPEGImages" / "y.jpg")
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(root=devkit, classes=3))
    assert main(["data", "check", str(path), "--json", "--no-leaks"]) == 1
    found = json.loads(capsys.readouterr().out)
    text = "\n".join(each["message"] for each in found["findings"] if each["level"] == "error")
    assert text.count("a.xml") == text.count("y.jpg") == 1
    assert text.count("MODEL.ROI_HEADS.NUM_CLASSES is 3, but") == 2  # for each dataset


def test_whole_data_passes(tmp_path, capsys):
    devkit = write_devkit(tmp_path / "kit", {"a": [("dog", (3, 3, 20, 20))]})
    write_devkit(devkit, {"x": [("dog", (3, 3, 20, 20))]}, "test")
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(root=devkit, classes=1))
    assert main(["data", "check", str(path), "--json", "--no-leaks"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == []
    assert main(["data", "check", str(path), "--json"]) == 1  # both are the same grey image
    (leak,) = json.loads(capsys.readouterr().out)["findings"]
    assert (leak["kind"], leak["file"]) == ("leaks", str(devkit / "VOC2007" / "JPEGImages" / "x.jpg"))
