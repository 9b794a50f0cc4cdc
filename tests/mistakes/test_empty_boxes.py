"""Boxes that are empty, or outside their image, for the loader of each framework.

Oracles: mmdet's XMLDataset and CocoDataset themselves, on the same files; Detectron2's DatasetMapper.
"""

import itertools
import math

import numpy as np
import pytest
from annotations import HEIGHT, PIPELINE, WIDTH, check, config, dataset, write_coco, write_devkit

from cvplugins.datasets import VOCObject, box_problem
from cvplugins.errors import UserError

LIST = "VOC2007/ImageSets/Main/trainval.txt"
GOOD = ("dog", (5, 5, 30, 30))
EMPTY = {
    "one pixel wide": (10, 5, 10, 20),
    "one pixel high": (10, 5, 20, 5),
    "within a pixel": (10.1, 5, 10.9, 20),
    "right of the image": (WIDTH + 2, 5, WIDTH + 9, 20),
    "below the image": (5, HEIGHT + 2, 9, HEIGHT + 9),
}


@pytest.fixture
def voc(tmp_path):
    """Write another devkit with a good box and this one."""
    numbers = itertools.count()

    def make(box, **more):
        root = write_devkit(tmp_path / str(next(numbers)), {"1": [GOOD, ("dog", box, more.pop("difficult", False))]})
        return dataset("VOCDataset", root, LIST, ("dog",), **more)

    return make


def training_boxes(node):
    """The boxes that a model of mmdet learns from."""
    from mmdet.datasets import VOCDataset
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    built = VOCDataset(**{key: value for key, value in node.items() if key != "type"})
    return built[0]["data_samples"].gt_instances.bboxes.tensor.numpy()


def has_size(boxes):
    return bool(np.all(boxes[:, 2:] > boxes[:, :2]))


@pytest.mark.openmmlab
@pytest.mark.parametrize("kind", EMPTY)
def test_a_box_that_mmdet_would_make_empty_is_named(voc, kind):
    node = voc(EMPTY[kind])
    assert not has_size(training_boxes(node))
    with pytest.raises(UserError, match=r"1\.xml, line \d+: object 'dog': .*1 such objects.*skip_broken=True"):
        check(config(node))


@pytest.mark.openmmlab
@pytest.mark.parametrize("kind", EMPTY)
def test_it_can_be_left_out_and_the_others_stay(voc, kind, caplog):
    cfg = config(voc(EMPTY[kind]), skip_broken=True)
    check(cfg)
    (box,) = training_boxes(cfg.train_dataloader.dataset)
    assert box.tolist() == [4, 4, 29, 29]  # that of GOOD, counted from 0
    assert any("1.xml, line" in each for each in caplog.messages)


@pytest.mark.openmmlab
@pytest.mark.parametrize("box", [(10, 5, 11, 6), (10.1, 5, 11.0, 20), (-5, -5, 3, 3), (50, 30, 90, 90), (1, 1, 60, 40)])
def test_boxes_that_mmdet_can_use(voc, box):
    node = voc(box)
    assert has_size(training_boxes(node))
    check(config(node))


@pytest.mark.openmmlab
def test_empty_boxes_that_reach_no_loss(voc, caplog):
    """Difficult objects and those below bbox_min_size are ignored, FilterAnnotations leaves out, tests do not mind."""
    filtered = [dict(step) for step in PIPELINE]
    filtered.insert(3, {"type": "FilterAnnotations", "min_gt_bbox_wh": (1, 1), "keep_empty": False})
    box = EMPTY["one pixel wide"]
    for node in (
        voc(box, difficult=True),
        voc(box, filter_cfg={"bbox_min_size": 1}),
        voc(box, pipeline=filtered),
    ):
        assert has_size(training_boxes(node))
        check(config(node))
    with pytest.raises(UserError, match="has no width"):
        check(config(voc(box, filter_cfg={"bbox_min_size": 0})))
    check(config(voc(GOOD[1]), voc(box, test_mode=True)))
    assert any("1 boxes are empty or outside their image" in each for each in caplog.messages)


@pytest.mark.openmmlab
def test_the_filter_stands_behind_all_steps_of_a_wrapper(tmp_path):
    """Mosaic and the like cut boxes after the dataset's own pipeline."""
    root = write_devkit(tmp_path / "VOCdevkit", {"1": [GOOD, ("dog", EMPTY["one pixel wide"])]})
    inner = dataset("VOCDataset", root, LIST, ("dog",), pipeline=[dict(step) for step in PIPELINE[:2]])
    train = {"type": "MultiImageMixDataset", "dataset": inner, "pipeline": [dict(step) for step in PIPELINE[2:]]}
    cfg = config(train, skip_broken=True)
    check(cfg)
    steps = [step["type"] for step in cfg.train_dataloader.dataset.pipeline]
    assert steps == ["Resize", "mmdet.FilterAnnotations", "PackDetInputs"]
    assert len(cfg.train_dataloader.dataset.dataset.pipeline) == 2


COCO_OBJECTS = [
    (1, 1, (5, 5, 20, 20)),
    (1, 1, (5, 5, 0, 20)),
    (1, 1, (5, 5, -3, 20)),
    (1, 1, (5, 5, 0.9, 20)),
    (1, 1, (WIDTH, 5, 9, 20)),
    (1, 1, (-9, 5, 9, 20)),
    (1, 1, (WIDTH - 1, HEIGHT - 1, 9, 20)),
    (1, 1, (5, 5, 20, 20), {"area": 0}),
    (1, 1, (5, 5, 20, 20), {"iscrowd": 1}),
    (1, 1, (5, 5, 20, 20), {"ignore": 1}),
    (1, 2, (5, 5, 20, 20)),
    (2, 1, (1.5, 2.5, 1, 1)),
]


@pytest.mark.openmmlab
def test_objects_are_counted_as_cocodataset_loads_them(tmp_path, caplog):
    from mmdet.datasets import CocoDataset

    from cvplugins.openmmlab.data.coco_checks import read_coco_file

    path = write_coco(tmp_path / "a.json", [(1, "dog"), (2, "cat")], COCO_OBJECTS)
    loaded = CocoDataset(ann_file=str(path), metainfo={"classes": ("dog",)}, data_prefix={"img": ""}, pipeline=[])
    instances = [each for index in range(len(loaded)) for each in loaded.get_data_info(index)["instances"]]
    assert all(box_problem(each["bbox"]) is None for each in instances)
    counts, unusable = read_coco_file(path).check_boxes(("dog",))
    assert unusable == []
    assert counts.usable["dog"] == sum(not each["ignore_flag"] for each in instances)
    assert counts.others == {"cat": 1}
    assert any("leaves out" in each and "annotations[1] (id 2, 'dog', image 1.jpg)" in each for each in caplog.messages)
    check(config(dataset("CocoDataset", tmp_path, "a.json", ("dog",))))


@pytest.mark.openmmlab
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2, 3]}, r"annotations\[0\]\.bbox is \[1, 2, 3\]; expected \[x, y, width, height\]"),
        ({"bbox": None}, r"annotations\[0\]\.bbox is null"),
        ({"area": None}, r"annotations\[0\]\.area is null"),
        ({"category_id": [1]}, r"annotations\[0\]\.category_id is \[1\]"),
        ({"bbox": [1, 1, math.nan, 9]}, r"annotations\[0\]\.bbox is \[1, 1, NaN, 9\]; expected"),
        ({"bbox": [1, 1, math.inf, 9]}, r"annotations\[0\]\.bbox is \[1, 1, Infinity, 9\]; expected"),
    ],
)
def test_what_cocodataset_would_fail_at(tmp_path, change, message):
    write_coco(tmp_path / "a.json", [(1, "dog")], [(1, 1, (5, 5, 20, 20), change)])
    with pytest.raises(UserError, match=rf"a\.json: {message}"):
        check(config(dataset("CocoDataset", tmp_path, "a.json", ("dog",))))


@pytest.mark.detectron2
@pytest.mark.parametrize("kind", EMPTY)
def test_detectron2_keeps_a_box_of_one_pixel_and_leaves_out_those_outside(tmp_path, kind):
    """Oracle: the mapper, whose instances are what training sees."""
    from detectron2.data import DatasetMapper

    from cvplugins.detectron2.data.dataset_checks import voc_box_problem
    from cvplugins.detectron2.data.voc import voc_records

    root = write_devkit(tmp_path / "VOCdevkit", {"1": [("dog", EMPTY[kind])]})
    (record,) = voc_records(root, "VOC2007", "trainval", ("dog",))
    seen = DatasetMapper(is_train=True, augmentations=[], image_format="RGB")(record)["instances"]
    problem = voc_box_problem(VOCObject("dog", *EMPTY[kind]), WIDTH, HEIGHT)
    assert len(seen) == (problem is None)
    assert (problem is None) == ("of the image" not in kind and "the image" not in kind)


@pytest.mark.detectron2
def test_detectron2_says_what_it_leaves_out(tmp_path, caplog):
    from cvplugins.detectron2 import load_config, register_datasets
    from cvplugins.detectron2.data.checks import check_data

    outside = ("dog", EMPTY["right of the image"])
    root = write_devkit(tmp_path / "VOCdevkit", {"1": [GOOD, outside]})
    train = ("cvplugins_voc_2007_trainval",)
    data = {"CVPLUGINS.DATA.ROOT": str(root), "CVPLUGINS.DATA.CLASSES": ["dog"], "MODEL.ROI_HEADS.NUM_CLASSES": 1}
    cfg = load_config("voc_faster_rcnn_sample", {**data, "DATASETS.TRAIN": train})
    register_datasets(cfg)
    check_data(cfg, train)
    assert any("Detectron2 leaves out 1 objects" in each and "1.xml, line" in each for each in caplog.messages)
    root = write_devkit(root, {"1": [outside]})
    with pytest.raises(UserError, match=r"DATASETS\.TRAIN .*: no object to learn from of the classes dog"):
        check_data(cfg, train)
