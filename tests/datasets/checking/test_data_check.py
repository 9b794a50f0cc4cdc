"""`cvplugins data check` on data: everything at once. Oracle: the mistakes that each test makes, one by one."""

import json
import shutil

import numpy as np
import pytest
from annotations import write_coco, write_devkit
from PIL import Image
from scenes import first_image, label_map, small_scenes

from cvplugins.cli import main
from cvplugins.datasets import check_coco_file
from cvplugins.datasets.findings import Finding, Findings
from cvplugins.datasets.layouts import find_splits
from cvplugins.errors import DataError, UserError


@pytest.fixture
def check(capsys):
    """Run the command; return its exit code and its findings as JSON."""

    def _check(*arguments):
        code = main(["data", "check", *map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return _check


def messages(found, kind, level="error"):
    return [each for each in found["findings"] if each["kind"] == kind and each["level"] == level]


def test_whole_data_has_no_finding(check, sample, scenes):
    code, found = check(sample)
    assert (code, found["findings"]) == (0, [])
    assert [each["images"] for each in found["splits"]] == [140, 91, 60]  # docs/data.md
    assert sum(sum(each["objects"].values()) for each in found["splits"]) == 744
    code, found = check(scenes)
    assert (code, found["errors"]) == (0, 0)  # that most of the 150 classes are in no drawn scene is a warning


def test_every_mistake_of_a_devkit_is_named_once(check, tmp_path):
    devkit = write_devkit(
        tmp_path / "kit",
        {name: [("dog", (3, 3, 20, 20)), ("cat", (5, 5, 30, 30))] for name in ("a", "b", "c", "d", "e")},
    )
    folder = devkit / "VOC2007"
    xml = (folder / "Annotations" / "a.xml").read_text()
    two = xml.replace("<xmin>3<", "<xmin>three<").replace("<xmax>30<", "<xmax>1<")
    (folder / "Annotations" / "a.xml").write_text(two)
    (folder / "Annotations" / "b.xml").unlink()
    (folder / "JPEGImages" / "c.jpg").unlink()
    (folder / "Annotations" / "d.xml").write_text(xml.replace("<xmax>20<", "<xmax>3<").replace("cat", "Dog"))
    Image.new("RGB", (61, 40)).save(folder / "JPEGImages" / "e.jpg")
    code, found = check(devkit)
    assert code == 1
    annotations = messages(found, "annotations")
    assert [(each["file"].rpartition("/")[2], each["key"], each["value"]) for each in annotations[:1]] == [
        ("a.xml", "<xmin>", "three")
    ]
    assert ["inside out" in each["message"] for each in annotations] == [False, True, False]
    assert annotations[1]["line"] > annotations[0]["line"] > 0
    assert annotations[2]["file"].endswith("b.xml")
    images = messages(found, "images")
    assert [each["file"].rpartition("/")[2] for each in images] == ["c.jpg", "e.jpg"]
    assert images[1]["value"] == "61 x 40"
    (thin,) = messages(found, "boxes", "warning")  # Detectron2 trains on it
    assert "no width" in thin["message"]
    assert thin["file"].endswith("d.xml")
    (spelling,) = messages(found, "classes", "warning")
    assert "'Dog' (1)" in spelling["message"]
    assert "'dog' (1)" in spelling["message"]
    assert found["errors"] == 5


def test_boxes_that_no_loader_can_use_are_errors(check, tmp_path):
    devkit = write_devkit(tmp_path, {"a": [("dog", (70, 3, 80, 20)), ("dog", (3, 3, 20, 20))]})
    code, found = check(devkit)
    assert code == 1
    assert "outside the image of 60 x 40" in messages(found, "boxes")[0]["message"]


def test_a_broken_list_of_images(check, tmp_path):
    devkit = write_devkit(tmp_path, {"a": [("dog", (3, 3, 20, 20))]})
    (devkit / "VOC2007" / "ImageSets" / "Main" / "trainval.txt").write_text("a\na\n")
    code, found = check(devkit)
    assert code == 1
    assert [(each["kind"], each["line"], each["value"]) for each in found["findings"]] == [("lists", 2, "a")]


def test_every_mistake_of_an_annotation_file_is_named_once(check, tmp_path):
    objects = [
        (1, 1, (0, 0, 5)),
        (1, 7, (0, 0, 5, 5)),
        (2, 1, (0, 0, 5, 5), {"id": 2}),
        (2, 1, (0, 0, 5, 5)),
    ]
    path = write_coco(tmp_path / "train.json", [(1, "dog")], objects)
    code, found = check(path, "--no-leaks")
    assert code == 1
    keys = {each["key"] for each in messages(found, "annotations")}
    assert keys == {"annotations[1].category_id", "annotations[2].id", "annotations[0].bbox"}
    with pytest.raises(DataError) as error:
        check_coco_file(path)
    assert len(error.value.problems) == 3
    assert str(error.value) == error.value.problems[0]  # training still names the first


def test_values_of_wrong_types_are_all_named(check, tmp_path):
    path = write_coco(tmp_path / "train.json", [(1, "dog")], [(1, 1, (0, 0, 5, 5))] * 3)
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"] = "0 0 5 5"
    content["annotations"][2]["area"] = "nine"
    content["images"][1]["width"] = None
    path.write_text(json.dumps(content))
    code, found = check(path)
    assert code == 1
    keys = {(each["key"], each["value"]) for each in messages(found, "annotations")}
    assert {("images[1].width", "null"), ("annotations[0].bbox", "0 0 5 5"), ("annotations[2].area", "nine")} <= keys


@pytest.mark.parametrize("content", ["", "[]", "{}", "{", '{"images": 3}', "null", '{"images": [NaN]}'])
def test_files_that_are_no_annotations(check, tmp_path, content):
    path = tmp_path / "train.json"
    path.write_text(content)
    code, found = check(path, "--layout", "coco")
    assert code == 1
    assert all(each["file"] == str(path) for each in found["findings"])


def test_every_mistake_of_label_maps(check, scenes, tmp_path):
    root = small_scenes(scenes, tmp_path / "rooms")
    images = sorted((root / "images" / "training").glob("*.jpg"))
    label_map(images[0]).unlink()
    Image.new("L", (3, 4)).save(label_map(images[1]))
    Image.new("RGB", Image.open(images[2]).size).save(label_map(images[2]))
    wrong = np.asarray(Image.open(label_map(images[3]))).copy()
    wrong[:2, :3] = 200
    Image.fromarray(wrong).save(label_map(images[3]))
    code, found = check(root, "--reduce-zero-label", "--classes", *(f"c{n}" for n in range(150)), "--no-leaks")
    assert code == 1
    files = messages(found, "images and label maps")
    assert [each["file"].rpartition("/")[2] for each in files] == [label_map(each).name for each in images[:2]]
    colours, label = messages(found, "label maps")
    assert "holds colours" in colours["message"]
    assert (label["key"], label["value"]) == ("label", "200")
    assert "(6 pixels)" in label["message"]


def test_maps_of_0_and_255(check, tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.jpg")
    Image.fromarray(np.uint8([[0, 255]] * 4)).resize((8, 8), 0).save(tmp_path / "masks" / "a.png")
    code, found = check(tmp_path)
    assert code == 0
    assert "store it as 1" in messages(found, "classes", "warning")[0]["message"]


def test_leaks_are_pairs_of_files(check, real_voc, tmp_path):
    """Copies of photographs as they are made: the same bytes, compressed again, half the size, brighter."""
    source = real_voc / "VOCdevkit" / "VOC2007"
    names = [path.stem for path in sorted((source / "JPEGImages").glob("*.jpg"))[:30]]
    folder = tmp_path / "VOC2007"
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    copies = {"bytes": names[0], "quality": names[1], "half": names[2], "bright": names[3]}
    for name in (*names, *copies):
        shutil.copy(source / "Annotations" / f"{copies.get(name, name)}.xml", folder / "Annotations" / f"{name}.xml")
        shutil.copy(source / "JPEGImages" / f"{copies.get(name, name)}.jpg", folder / "JPEGImages" / f"{name}.jpg")
    for name, change in {
        "quality": lambda image: image,
        "half": lambda image: image.resize((image.width // 2, image.height // 2)),
        "bright": lambda image: image.point(lambda value: min(255, int(1.15 * value))),
    }.items():
        path = folder / "JPEGImages" / f"{name}.jpg"
        change(Image.open(path)).save(path, quality=50)
    (folder / "ImageSets" / "Main" / "trainval.txt").write_text("\n".join(names[:25]))
    (folder / "ImageSets" / "Main" / "test.txt").write_text("\n".join([*names[25:], *copies, names[4]]))
    code, found = check(tmp_path)
    assert code == 1
    pairs = {
        (each["file"].rpartition("/")[2][:-4], each["level"]) for each in found["findings"] if each["kind"] == "leaks"
    }
    same = {("bytes", "error"), (names[4], "error")}
    assert pairs == same | {(name, "warning") for name in ("quality", "half", "bright")}
    for each in messages(found, "leaks", "warning"):
        assert copies[each["file"].rpartition("/")[2][:-4]] in each["message"]
    assert check(tmp_path, "--no-leaks")[1]["errors"] == 0 or "leaks" not in {
        each["kind"] for each in check(tmp_path, "--no-leaks")[1]["findings"]
    }


def test_splits_and_layouts(sample, scenes, tmp_path):
    assert [each.name for each in find_splits(sample, splits=["test"])] == ["VOC2007 test"]
    assert [each.name for each in find_splits(sample / "VOC2012")] == ["VOC2012 trainval"]
    assert [each.name for each in find_splits(scenes)] == ["training", "validation"]
    (tmp_path / "photographs").mkdir()
    (tmp_path / "truth").mkdir()
    shutil.copy(first_image(scenes), tmp_path / "photographs" / "a.jpg")
    shutil.copy(label_map(first_image(scenes)), tmp_path / "truth" / "a.png")
    (split,) = find_splits(tmp_path)
    assert split.pairs == ((tmp_path / "photographs" / "a.jpg", tmp_path / "truth" / "a.png"),)
    with pytest.raises(UserError, match="has no split 'validate'; there are training, validation"):
        find_splits(scenes, splits=["validate"])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["nowhere"], "does not exist"),
        (["."], "not recognised"),
        (["data", "--near", "200"], "expected 0 to 128"),
        (["data", "--cfg-options", "a=1"], "is for a config"),
    ],
)
def test_mistakes_in_the_command(tmp_path, monkeypatch, capsys, arguments, match):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", *arguments]) == 2
    error = capsys.readouterr().err
    assert match in error
    assert error.count("\n") == 1


def test_text_lists_kinds_and_numbers(tmp_path, capsys):
    devkit = write_devkit(tmp_path, {f"{n}": [("dog", (70, 3, 80, 20))] for n in range(40)})
    assert main(["data", "check", str(devkit)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "boxes: 40 errors" in lines
    assert "  ... and 10 more; --json lists all" in lines
    assert lines[-1] == "40 errors, 0 warnings"


@pytest.mark.parametrize(
    ("message", "file", "line", "key", "value"),
    [
        ("a b/c.xml, line 3: <name> is '', not a name", "a b/c.xml", 3, "<name>", ""),
        ("x.json: annotations[3].bbox is [1, 2]; expected", "x.json", None, "annotations[3].bbox", "[1, 2]"),
        ("x.json: annotations[3] has no 'bbox'", "x.json", None, "annotations[3]", ""),
        ("m.png: label 9 (3 pixels)", "m.png", None, "label", "9"),
        ("no object to learn from", "", None, "", ""),
    ],
)
def test_a_message_in_its_parts(message, file, line, key, value):
    found = Finding.of("k", "error", message)
    assert (found.file, found.line, found.key, found.value) == (file, line, key, value)


def test_steps_collect_errors_and_warnings():
    import logging

    findings = Findings()
    with findings.step("a"):
        logging.getLogger("cvplugins.somewhere").warning("%d left", 3)
        raise DataError("two", ["one.txt: x", "two.txt: y"])
    assert [(each.level, each.file) for each in findings.found] == [
        ("warning", ""),
        ("error", "one.txt"),
        ("error", "two.txt"),
    ]
    with pytest.raises(KeyError), findings.step("a"):
        raise KeyError("a fault of ours is no finding")
