"""What labels mean in training, validation and the file of a metric, in both frameworks.

Oracles: what mmdet's CocoDataset and Detectron2's load_coco_json themselves make of the files.
"""

import json

import pytest
from annotations import check, config, dataset, write_coco, write_devkit

from cvplugins.errors import UserError

CATS = [(1, "cat"), (2, "dog")]
NAMES = ("cat", "dog")
BOX = (1, 1, 9, 9)
LIST = "VOC2007/ImageSets/Main/trainval.txt"


@pytest.fixture
def files(tmp_path):
    """Write annotation files; return their folder."""

    def write(**categories):
        for name, found in categories.items():
            objects = [(image, found[label % len(found)][0], BOX) for label, image in enumerate((1, 2))]
            write_coco(tmp_path / f"{name}.json", found, objects)
        return tmp_path

    return write


def coco(root, name, classes=NAMES, **more):
    return dataset("CocoDataset", root, f"{name}.json", classes, **more)


def mmdets_names(root, name, classes):
    """The category of each label, of the boxes as mmdet loads them."""
    from mmdet.datasets import CocoDataset

    options = coco(root, name, classes, pipeline=[])
    loaded = CocoDataset(**{key: value for key, value in options.items() if key != "type"})
    names = {each["id"]: each["name"] for each in json.loads((root / f"{name}.json").read_text())["categories"]}
    return [names[number] for number in loaded.cat_ids]


@pytest.mark.openmmlab
@pytest.mark.parametrize(
    ("categories", "classes", "message"),
    [
        (CATS, NAMES, None),
        ([(7, "cat"), (3, "dog")], NAMES, None),  # mmdet goes by the order, not by the ids
        ([(1, "bird"), *((number + 1, name) for number, name in CATS)], NAMES, None),  # others are left out
        (CATS[::-1], NAMES, "label 0 is the category 'dog' (id 2)"),
        (CATS, NAMES[::-1], "label 0 is the category 'cat' (id 1)"),
        ([(1, "cat")], NAMES, "has no category 'dog'"),
        ([(1, "cat"), (2, "dog"), (3, "cat")], NAMES, "two categories are called 'cat'"),
    ],
)
def test_the_order_of_categories_is_mmdets(files, categories, classes, message):
    root = files(train=categories)
    right = tuple(mmdets_names(root, "train", classes)) == classes
    assert right == (message is None)
    cfg = config(coco(root, "train", classes))
    if right:
        check(cfg)
        return
    with pytest.raises(UserError) as error:
        check(cfg)
    assert str(error.value).startswith(str(root / "train.json"))
    assert message in str(error.value)


@pytest.mark.openmmlab
def test_validation_with_categories_in_another_order(files):
    root = files(train=CATS, val=CATS[::-1])
    with pytest.raises(
        UserError, match=r"val\.json: label 0 is the category 'dog' \(id 2\).* but 'cat' in the classes of"
    ):
        check(config(coco(root, "train"), coco(root, "val", test_mode=True)))


@pytest.mark.openmmlab
@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("dog", "cat"), r"label 0 is 'cat' in train_dataloader\.dataset .*, but 'dog' in val_dataloader\.dataset"),
        (("cat", "bird"), r"label 1 is 'dog' in train_dataloader\.dataset .*, but 'bird' in val_dataloader\.dataset"),
        (("cat",), r"there are 2 classes in train_dataloader\.dataset .*, but 1 in val_dataloader\.dataset"),
        (("Cat", "dog"), None),  # the same class, as the other file writes it
    ],
)
def test_classes_of_two_loaders(tmp_path, classes, message):
    train = write_devkit(tmp_path / "a", {"1": [("cat", BOX), ("dog", BOX)]})
    val = write_devkit(tmp_path / "b", {"1": [(name, BOX) for name in classes]})
    cfg = config(dataset("VOCDataset", train, LIST, NAMES), dataset("VOCDataset", val, LIST, classes, test_mode=True))
    if message is None:
        check(cfg)
        return
    with pytest.raises(UserError, match=message):
        check(cfg)


@pytest.mark.openmmlab
def test_a_test_that_will_be_another_is_warned_of(files, caplog):
    root = files(train=CATS)
    other = {"dataset": coco(root, "none", ("dog", "cat"), test_mode=True)}
    check(config(coco(root, "train"), test_dataloader=other))
    assert sum("label 0 is 'dog' in test_dataloader.dataset" in each for each in caplog.messages) == 1


@pytest.mark.openmmlab
def test_a_test_of_other_classes_than_the_training_had(files):
    from cvplugins.openmmlab.data.checks import check_data

    root = files(val=CATS[::-1])
    tested = {"dataset": coco(root, "val", ("dog", "cat"), test_mode=True)}
    with pytest.raises(
        UserError, match=r"label 0 is 'cat' in train_dataloader\.dataset .*, but 'dog' in test_dataloader"
    ):
        check_data(config(coco(root, "gone"), test_dataloader=tested), ("test_dataloader",), True)


@pytest.mark.openmmlab
def test_the_annotation_file_of_a_metric(files):
    root = files(train=CATS, val=CATS, other=CATS[::-1], again=[(7, "cat"), (3, "dog")])
    write_coco(root / "fewer.json", CATS, [(1, 1, BOX)], images=1)

    def checked(name):
        metric = {"type": "CocoMetric", "ann_file": str(root / f"{name}.json")}
        val = coco(root, "val", test_mode=True)
        check(config(coco(root, "train"), val, val_evaluator=[{"type": "DumpResults"}, metric]))

    checked("val")
    checked("again")  # CocoMetric numbers by the order too
    with pytest.raises(UserError, match=r"other\.json: label 0 is the category 'dog' .* val_evaluator\.1\.ann_file"):
        checked("other")
    with pytest.raises(
        UserError, match=r"val_evaluator\.1\.ann_file .*fewer\.json lacks 1 of the 2 images .* id 2 \(2\.jpg\)"
    ):
        checked("fewer")
    with pytest.raises(UserError, match=r"val_evaluator\.1\.ann_file .*none\.json does not exist"):
        checked("none")


@pytest.mark.openmmlab
def test_the_default_classes_of_coco_on_ones_own_file(files):
    root = files(train=CATS)
    with pytest.raises(UserError, match=r"of the 80 classes .* no category 'person'; set metainfo=dict\(classes"):
        check(config(coco(root, "train", None)))


@pytest.fixture
def registered(files):
    """Register annotation files in Detectron2's catalog; return a config that trains on one and tests on the other."""
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import register_coco_instances

    from cvplugins.detectron2 import load_config

    names = ("boxes_train", "boxes_val")

    def register(train, val, **metadata):
        root = files(train=train, val=val)
        for name in names:
            register_coco_instances(name, metadata, str(root / f"{name.removeprefix('boxes_')}.json"), str(root))
        options = {"DATASETS.TRAIN": names[:1], "DATASETS.TEST": names[1:], "MODEL.ROI_HEADS.NUM_CLASSES": 2}
        return load_config("voc_faster_rcnn_sample", options)

    yield register
    for name in names:
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


@pytest.mark.detectron2
@pytest.mark.parametrize(
    ("val", "message"),
    [
        (CATS, None),
        (CATS[::-1], None),  # Detectron2 goes by the ids, not by the order
        ([(7, "cat"), (9, "dog")], None),
        ([(1, "dog"), (2, "cat")], r"label 0 is 'cat' in boxes_train \(thing_classes\), but 'dog' in boxes_val"),
        ([(1, "cat"), (2, "bird")], r"label 1 is 'dog' in boxes_train \(thing_classes\), but 'bird' in boxes_val"),
        ([*CATS, (3, "bird")], r"MODEL\.ROI_HEADS\.NUM_CLASSES is 2, but dataset boxes_val has 3 classes"),
    ],
)
def test_detectron2_numbers_categories_by_their_ids(registered, val, message):
    from detectron2.data import MetadataCatalog

    from cvplugins.detectron2.data.checks import check_data

    cfg = registered(CATS, val)
    names = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    if message is None:
        check_data(cfg, names)
        assert MetadataCatalog.get("boxes_val").thing_classes == list(NAMES)
        return
    with pytest.raises(UserError, match=message):
        check_data(cfg, names)


@pytest.mark.detectron2
def test_metadata_of_detectron2_that_the_file_contradicts(registered):
    from cvplugins.detectron2.data.checks import check_data

    cfg = registered(CATS, CATS, thing_classes=["dog", "cat"])
    with pytest.raises(UserError, match=r"boxes_train: the categories of .*train\.json, sorted by id, are others than"):
        check_data(cfg, cfg.DATASETS.TRAIN)


@pytest.mark.detectron2
def test_an_object_of_no_category_in_detectron2(registered, files):
    from cvplugins.detectron2.data.checks import check_data

    cfg = registered(CATS, CATS)
    write_coco(files() / "train.json", CATS, [(1, 5, BOX)])
    with pytest.raises(UserError, match=r"train\.json: annotations\[0\]\.category_id is 5, which is none"):
        check_data(cfg, cfg.DATASETS.TRAIN)
