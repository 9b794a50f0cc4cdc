"""`cvplugins data check CONFIG`: all that the dry run would name, one after the other, at once.

Oracle: the mistakes made here, and the check before training, whose first error has to be among the findings.
"""

import json

import pytest
from annotations import check, config, dataset, write_coco, write_devkit
from PIL import Image

from cvplugins.cli import main
from cvplugins.errors import UserError

pytestmark = pytest.mark.openmmlab

GOOD = {name: [("dog", (3, 3, 20, 20))] for name in ("a", "b", "c")}


def examine(cfg, tmp_path, capsys, *options):
    path = tmp_path / "config.py"
    cfg.dump(path)
    code = main(["data", "check", str(path), "--json", *options])
    return code, json.loads(capsys.readouterr().out)


def test_mistakes_in_several_datasets(tmp_path, capsys):
    train = write_devkit(tmp_path / "train", GOOD)
    val = write_devkit(tmp_path / "val", GOOD, "test")
    (train / "VOC2007" / "Annotations" / "a.xml").write_text("<annotation>")
    (train / "VOC2007" / "JPEGImages" / "b.jpg").unlink()
    Image.new("RGB", (9, 9)).save(val / "VOC2007" / "JPEGImages" / "c.jpg")
    cfg = config(
        dataset("VOCDataset", train, "VOC2007/ImageSets/Main/trainval.txt", ("dog",)),
        dataset("VOCDataset", val, "VOC2007/ImageSets/Main/test.txt", ("dog",), test_mode=True),
    )
    code, found = examine(cfg, tmp_path, capsys)
    assert code == 1
    files = [each["file"] for each in found["findings"]]
    for part in ("train/VOC2007/Annotations/a.xml", "train/VOC2007/JPEGImages/b.jpg", "val/VOC2007/JPEGImages/c.jpg"):
        assert sum(part in file for file in files) == 1
    with pytest.raises(UserError, match=r"2 of 3 images missing or broken: .*a\.xml"):
        check(cfg)


def test_a_file_of_coco_and_a_leak(tmp_path, capsys):
    path = write_coco(tmp_path / "train.json", [(1, "dog")], [(1, 1, (0, 0, 5)), (2, 9, (0, 0, 5, 5)), (1, 1, (1,))])
    write_coco(tmp_path / "val.json", [(1, "dog")], [(1, 1, (0, 0, 5, 5))])
    cfg = config(
        dataset("CocoDataset", tmp_path, path.name, ("dog",)),
        dataset("CocoDataset", tmp_path, "val.json", ("dog",), test_mode=True),
    )
    code, found = examine(cfg, tmp_path, capsys)
    assert code == 1
    # mmdet leaves out what has no category.
    assert {"annotations[0].bbox", "annotations[2].bbox"} <= {each["key"] for each in found["findings"]}
    write_coco(tmp_path / "train.json", [(1, "dog")], [(1, 1, (0, 0, 5, 5))])
    code, found = examine(cfg, tmp_path, capsys)
    assert {each["kind"] for each in found["findings"] if each["level"] == "error"} == {"leaks"}
    assert examine(cfg, tmp_path, capsys, "--no-leaks")[0] == 0
    check(cfg)


def test_classes_that_contradict_each_other(tmp_path, capsys):
    devkit = write_devkit(tmp_path / "kit", GOOD)
    write_devkit(devkit, {name: [("dog", (3, 3, 20, 20))] for name in ("x", "y")}, "test")
    cfg = config(
        dataset("VOCDataset", devkit, "VOC2007/ImageSets/Main/trainval.txt", ("dog", "cat")),
        dataset("VOCDataset", devkit, "VOC2007/ImageSets/Main/test.txt", ("cat", "dog"), test_mode=True),
    )
    code, found = examine(cfg, tmp_path, capsys, "--no-leaks")
    assert code == 1
    assert "label 0 is 'dog'" in " ".join(each["message"] for each in found["findings"])


def test_mistakes_in_the_command(tmp_path, capsys):
    path = tmp_path / "config.py"
    path.write_text("a = 1\n")
    assert main(["data", "check", str(path), str(path)]) == 2
    assert "give it alone" in capsys.readouterr().err
    assert main(["data", "check", str(tmp_path / "none.py")]) == 2
