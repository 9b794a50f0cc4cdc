"""PASCAL VOC in the catalog, difficult objects, and what is found before any work."""

import pytest
from devkits import first_id, small_devkit
from small_detectron2_run import write_config

pytestmark = pytest.mark.detectron2

TRAIN = "cvplugins_voc_2007_trainval"


@pytest.fixture
def load(tmp_path, devkit):
    """Load the small config with some keys changed, and register its datasets."""
    from cvplugins.detectron2 import load_config, register_voc

    def loaded(**keys):
        cfg = load_config(write_config(tmp_path / "small.yaml", devkit, **keys))
        register_voc(cfg)
        return cfg

    return loaded


def test_records_are_those_of_detectron2(sample):
    """Oracle: Detectron2's own reader."""
    from detectron2.data.datasets.pascal_voc import load_voc_instances

    from cvplugins.datasets import VOC_CLASSES
    from cvplugins.detectron2.data.voc import voc_records

    ours = voc_records(sample, "VOC2007", "test")
    difficult = sum(each.pop("difficult") for record in ours for each in record["annotations"])
    assert ours == load_voc_instances(str(sample / "VOC2007"), "test", VOC_CLASSES)
    assert difficult > 0


def test_the_environment_is_honoured_where_the_config_names_no_folder(load, devkit, monkeypatch):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    monkeypatch.setenv("DETECTRON2_DATASETS", str(devkit))
    load(**{"CVPLUGINS.DATA.ROOT": ""})
    assert MetadataCatalog.get(TRAIN).dirname == str(devkit / "VOC2007")
    assert len(DatasetCatalog.get(TRAIN)) == 4
    monkeypatch.delenv("DETECTRON2_DATASETS")
    load(**{"CVPLUGINS.DATA.ROOT": ""})
    assert MetadataCatalog.get(TRAIN).dirname == "data/VOCdevkit/VOC2007"


def seen_in_training(cfg):
    """How many objects a pass over the images shows to the model."""
    from detectron2.data import DatasetMapper

    from cvplugins.detectron2.data.loading import training_records

    mapper = DatasetMapper(cfg, is_train=True)
    return sum(len(mapper(record)["instances"]) for record in training_records(cfg))


def test_difficult_objects_are_seen_or_ignored(sample, load):
    from cvplugins.datasets import check_voc

    (split,) = check_voc(sample, [("VOC2007", "trainval")]).splits
    keys = {"CVPLUGINS.DATA.ROOT": str(sample), "DATASETS.TRAIN": (TRAIN,)}
    assert split.difficult > 0
    assert seen_in_training(load(**keys)) == split.objects
    assert seen_in_training(load(**keys, **{"CVPLUGINS.DATA.DIFFICULT": False})) == split.objects - split.difficult


def test_a_dataset_that_does_not_know_what_is_difficult_is_named(load):
    from detectron2.data import DatasetCatalog

    from cvplugins.detectron2.data.loading import training_records
    from cvplugins.errors import UserError

    record = {"file_name": "a.jpg", "height": 1, "width": 1, "annotations": [{"category_id": 0}]}
    DatasetCatalog.register("plain", lambda: [record])
    try:
        with pytest.raises(UserError, match=r"DIFFICULT is False, but the dataset of a.jpg does not say"):
            training_records(load(**{"DATASETS.TRAIN": ("plain",), "CVPLUGINS.DATA.DIFFICULT": False}))
    finally:
        DatasetCatalog.remove("plain")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"CVPLUGINS.DATA.ROOT": "no/such"}, r"no VOC data: folder .*no/such/VOC2007 does not exist.*To get VOC"),
        ({"DATASETS.TRAIN": ("cvplugins_voc_2007_trainvall",)}, "did you mean cvplugins_voc_2007_trainval"),
        ({"MODEL.ROI_HEADS.NUM_CLASSES": 80}, "ROI_HEADS.NUM_CLASSES is 80, but dataset .* has 20 classes"),
        ({"DATASETS.TRAIN": ("coco_2017_train",)}, "coco_2017_train: .*does not exist; .*DETECTRON2_DATASETS"),
    ],
)
def test_mistakes_are_found_before_any_work(load, keys, message):
    from cvplugins.detectron2.data.checks import check_data
    from cvplugins.errors import UserError

    cfg = load(**keys)
    with pytest.raises(UserError, match=message):
        check_data(cfg, cfg.DATASETS.TRAIN)


def test_broken_images_are_left_out_if_that_is_wanted(sample, tmp_path, load):
    from detectron2.data import DatasetCatalog

    from cvplugins.detectron2.data.checks import check_data
    from cvplugins.errors import UserError

    broken = small_devkit(sample, tmp_path / "VOCdevkit")
    (broken / "VOC2007" / "JPEGImages" / f"{first_id(broken)}.jpg").write_bytes(b"no image")
    keys = {"CVPLUGINS.DATA.ROOT": str(broken)}
    with pytest.raises(UserError, match="1 of 4 images missing or broken"):
        check_data(load(**keys), [TRAIN])
    check_data(load(**keys, **{"CVPLUGINS.DATA.SKIP_BROKEN": True}), [TRAIN])
    found = [each["image_id"] for each in DatasetCatalog.get(TRAIN)]
    assert len(found) == 3
    assert first_id(broken) not in found


def first_batches(cfg, start, count, workers=0):
    import itertools

    from cvplugins.detectron2.data.loading import build_training_loader

    cfg.DATALOADER.NUM_WORKERS = workers
    loader = build_training_loader(cfg)
    loader.start = start
    return list(itertools.islice(loader, count))


def test_a_loader_begins_at_any_batch_with_any_number_of_workers(load):
    cfg = load(**{"INPUT.MIN_SIZE_TRAIN": (48, 56, 64)})
    straight = first_batches(cfg, 0, 6)
    for start, workers in ((3, 0), (3, 2)):
        for batch, again in zip(straight[start:], first_batches(cfg, start, 3, workers), strict=True):
            assert [each["image_id"] for each in batch] == [each["image_id"] for each in again]
            assert all((a["image"] == b["image"]).all() for a, b in zip(batch, again, strict=True))
    assert len({tuple(each["image"].shape) for batch in straight for each in batch}) > 2  # augmentation is random


def test_batches_hold_images_of_one_orientation():
    from cvplugins.detectron2.data.loading import group_batches

    assert list(group_batches([0, 1, 2, 3, 4, 5], [0, 1, 0, 1, 1, 0], 2)) == [[0, 2], [1, 3]]
