"""Training on some of the classes in the data, and names that are misspelt, in both frameworks and in ``evaluate``.

Oracles: mmdet's VOCDataset on the same files; Detectron2's reader of PASCAL VOC on files without the other classes.
"""

import json

import pytest
from annotations import check, config, dataset, write_coco, write_devkit

from cvplugins.datasets import ClassCounts, missing_classes
from cvplugins.errors import DataError, UserError

LIST = "VOC2007/ImageSets/Main/trainval.txt"
BOX = (5, 5, 30, 30)
MIXED = {
    "1": [("person", BOX), ("dog", BOX), ("car", BOX)],
    "2": [("dog", BOX), ("dog", BOX)],
    "3": [("car", BOX), ("person", BOX, True)],
}
SOME = ("car", "person")


@pytest.fixture
def mixed(tmp_path):
    return write_devkit(tmp_path / "VOCdevkit", MIXED)


def voc(root, classes, **more):
    return dataset("VOCDataset", root, LIST, classes, **more)


@pytest.mark.openmmlab
def test_other_classes_are_left_out_as_mmdet_does(mixed, caplog):
    from mmdet.datasets import VOCDataset

    options = voc(mixed, SOME, pipeline=[])
    loaded = VOCDataset(**{key: value for key, value in options.items() if key != "type"})
    objects = sum(len(loaded.get_data_info(index)["instances"]) for index in range(len(loaded)))
    with caplog.at_level("INFO", logger="cvplugins"):
        check(config(voc(mixed, SOME), voc(mixed, SOME, test_mode=True)))
    expected = f"VOC2007 trainval: {objects} objects; 3 of other classes are left out: dog (3)"
    assert caplog.messages.count(expected) == 2
    assert objects == 4


@pytest.mark.openmmlab
def test_a_class_that_occurs_nowhere_is_named(mixed, caplog):
    check(config(voc(mixed, (*SOME, "bicycle"))))
    assert any("there is no object to learn from of the classes bicycle" in each for each in caplog.messages)


@pytest.mark.openmmlab
@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("car", "persn"), r"the class 'persn' occurs nowhere; did you mean 'person' \(2 objects, left out\)\?"),
        (("car", "Person"), r"1\.xml: an object's name 'person' is not the class 'Person', so it would be left out"),
        (("helmet", "vest"), r"no object to learn from of the classes helmet, vest; the objects there: dog \(3\), "),
    ],
)
def test_misspelt_classes(mixed, classes, message):
    with pytest.raises(UserError, match=message):
        check(config(voc(mixed, classes)))


@pytest.mark.openmmlab
def test_a_name_with_a_blank_in_one_file(mixed):
    path = mixed / "VOC2007" / "Annotations" / "2.xml"
    path.write_text(path.read_text().replace("<name>dog</name>", "<name>dog </name>", 1))
    with pytest.raises(UserError, match=r"2\.xml: an object's name 'dog ' is not the class 'dog'"):
        check(config(voc(mixed, ("dog",))))


@pytest.mark.openmmlab
def test_a_class_that_only_a_second_dataset_has(mixed, tmp_path, caplog):
    """What a loader reads together is counted together."""
    more = write_devkit(tmp_path / "more", {"1": [("bicycle", BOX)]})
    classes = (*SOME, "bicycle")
    check(config({"type": "ConcatDataset", "datasets": [voc(mixed, classes), voc(more, classes)]}))
    assert not any("no object to learn from" in each for each in caplog.messages)


@pytest.mark.openmmlab
def test_some_classes_of_a_coco_file(tmp_path, caplog):
    names = [(1, "cat"), (2, "dog"), (3, "car")]
    write_coco(tmp_path / "a.json", names, [(1, 1, BOX), (1, 2, BOX), (2, 3, BOX)])
    with caplog.at_level("INFO", logger="cvplugins"):
        check(config(dataset("CocoDataset", tmp_path, "a.json", ("cat", "car"))))
    assert any(each.endswith("2 objects; 1 of other classes are left out: dog (1)") for each in caplog.messages)
    content = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps({**content, "annotations": content["annotations"][1:2]}))
    with pytest.raises(UserError, match=r"no object to learn from of the classes cat, car; .*: dog \(1\)"):
        check(config(dataset("CocoDataset", tmp_path, "a.json", ("cat", "car"))))


def test_difficult_objects_teach_nothing_but_are_there():
    counts = ClassCounts()
    counts.add("dog", usable=False)
    counts.add("cat", usable=True)
    counts.leave_out("dogs", "1.xml")
    assert missing_classes(("dog", "cat"), counts, "train") == ["dog"]
    with pytest.raises(DataError, match="train: no object to learn from of the classes dog"):
        missing_classes(("dog",), counts, "train")


@pytest.fixture
def load(mixed):
    from cvplugins.detectron2 import load_config, register_datasets

    def loaded(classes, **keys):
        options = {
            "CVPLUGINS.DATA.ROOT": str(mixed),
            "CVPLUGINS.DATA.CLASSES": list(classes),
            "MODEL.ROI_HEADS.NUM_CLASSES": len(classes),
            "DATASETS.TRAIN": ("cvplugins_voc_2007_trainval",),
            **keys,
        }
        cfg = load_config("voc_faster_rcnn_sample", options)
        register_datasets(cfg)
        return cfg

    return loaded


@pytest.mark.detectron2
def test_other_classes_are_left_out_in_detectron2(load, mixed, tmp_path, caplog):
    """Training reads, and evaluation counts, what Detectron2 reads of the same files without the other objects."""
    from detectron2.data import DatasetCatalog
    from detectron2.data.datasets.pascal_voc import load_voc_instances

    from cvplugins.detectron2.data.checks import check_data
    from cvplugins.detectron2.metrics.ground_truth import dataset_truths

    cfg = load(SOME)
    with caplog.at_level("INFO", logger="cvplugins"):
        check_data(cfg, cfg.DATASETS.TRAIN)
    assert any("4 objects; 3 of other classes are left out: dog (3)" in each for each in caplog.messages)
    kept = {name: [each for each in objects if each[0] in SOME] for name, objects in MIXED.items()}
    expected = load_voc_instances(str(write_devkit(tmp_path / "kept", kept) / "VOC2007"), "trainval", SOME)
    records = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])
    for record, other in zip(records, expected, strict=True):
        found = [{key: each[key] for key in ("category_id", "bbox")} for each in record["annotations"]]
        assert found == [{key: each[key] for key in ("category_id", "bbox")} for each in other["annotations"]]
    truths, _ = dataset_truths(cfg.DATASETS.TRAIN[0])
    assert {image: found["truth_labels"].tolist() for image, found in truths.items()} == {
        "1": [1, 0],
        "2": [],
        "3": [0, 1],
    }


@pytest.mark.detectron2
@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("car", "persn"), r"DATASETS.TRAIN .*the class 'persn' occurs nowhere; did you mean 'person'"),
        (("car", "Person"), r"1\.xml: an object's name 'person' is not the class 'Person'"),
        (("helmet", "vest"), r"no object to learn from of the classes helmet, vest"),
        (("car", "car"), r"CVPLUGINS\.DATA\.CLASSES names 'car' twice"),
    ],
)
def test_misspelt_classes_in_detectron2(load, classes, message):
    from cvplugins.detectron2.data.checks import check_data

    cfg = load(classes)
    with pytest.raises(UserError, match=message):
        check_data(cfg, cfg.DATASETS.TRAIN)


@pytest.mark.detectron2
def test_the_number_of_classes_and_the_keys(load):
    from cvplugins.detectron2.data.checks import check_data

    cfg = load(SOME, **{"MODEL.ROI_HEADS.NUM_CLASSES": 20})
    message = r"ROI_HEADS\.NUM_CLASSES is 20, but dataset .* has 2 classes; set it to 2, or .*CVPLUGINS\.DATA\.CLASSES"
    with pytest.raises(UserError, match=message):
        check_data(cfg, cfg.DATASETS.TRAIN)


@pytest.mark.detectron2
def test_one_class_as_a_string_in_detectron2(tool, mixed):
    options = [f"CVPLUGINS.DATA.ROOT={mixed}", "CVPLUGINS.DATA.CLASSES=car"]
    code, _, errors = tool("train", "configs/detectron2/voc_faster_rcnn_sample.yaml", "--cfg-options", *options)
    assert (code, len(errors)) == (2, 1)
    assert "CVPLUGINS.DATA.CLASSES" in errors[0]


def test_evaluate_leaves_out_other_classes(mixed):
    from cvplugins.evaluation.truths import read_truths

    truths = read_truths(mixed / "VOC2007", split="trainval", classes=SOME)
    labels = {name: found["truth_labels"].tolist() for name, found in truths.images.items()}
    assert labels == {"1": [1, 0], "2": [], "3": [0, 1]}
