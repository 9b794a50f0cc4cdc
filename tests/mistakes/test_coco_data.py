"""Annotation files in COCO's format that loaders or metrics would stumble over: named before any work.

What pycocotools, mmdet and Detectron2 do with such files is tested in datasets/test_coco_check.py and
evaluation/test_coco_as_written.py.
"""

import json

import pytest
from annotations import HEIGHT, PIPELINE, WIDTH, check, config, dataset, write_coco
from PIL import Image

from cvplugins.errors import UserError

OUTLINE = {"segmentation": [[5, 5, 30, 5, 30, 30, 5, 30]]}
GOOD = (1, 1, (5, 5, 25, 25), OUTLINE)
MASKS = [{**step, "with_mask": True} if "with_bbox" in step else dict(step) for step in PIPELINE]


def written(folder, *changes, name="a.json"):
    """Write a good object and another with these changes; None takes a key away."""
    path = write_coco(folder / name, [(1, "dog"), (2, "cat")], [GOOD, (2, 2, (5, 5, 25, 25), OUTLINE)])
    content = json.loads(path.read_text())
    for change in changes:
        content["annotations"][1] |= change
    content["annotations"][1] = {key: value for key, value in content["annotations"][1].items() if value != "gone"}
    path.write_text(json.dumps(content))
    for image in content["images"]:
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / image["file_name"])
    return path


# The changes, what message, and whether boxes alone are trained with them.
MALFORMED = {
    "a word as id of its image": ({"image_id": "two"}, r"annotations\[1\]\.image_id is \"two\"", False),
    "a box of three numbers": ({"bbox": [1, 2, 3]}, r"annotations\[1\]\.bbox is \[1, 2, 3\]", False),
    "the id of another": ({"id": 1}, r"annotations\[1\]\.id is 1, as annotations\[0\]", False),
    "no outline": ({"segmentation": "gone"}, r"annotations\[1\]\.segmentation \(image 2\) is missing", True),
    "an outline of null": ({"segmentation": None}, r"annotations\[1\]\.segmentation \(image 2\) is null", True),
}


def mmdet_config(folder, masks, **more):
    pipeline = [dict(step) for step in (MASKS if masks else PIPELINE)]
    node = dataset("CocoDataset", folder, "a.json", ("dog", "cat"), pipeline=pipeline)
    if not more:
        return config(node)
    return config(node, {**node, "test_mode": True}, **more)


@pytest.mark.openmmlab
@pytest.mark.parametrize("case", MALFORMED)
def test_mmdet_data(tmp_path, case):
    change, message, boxes_are_fine = MALFORMED[case]
    written(tmp_path)
    check(mmdet_config(tmp_path, masks=True))
    written(tmp_path, change)
    with pytest.raises(UserError, match=rf"a\.json: {message}"):
        check(mmdet_config(tmp_path, masks=True))
    if boxes_are_fine:
        check(mmdet_config(tmp_path, masks=False))
    else:
        with pytest.raises(UserError, match=rf"a\.json: {message}"):
            check(mmdet_config(tmp_path, masks=False))


@pytest.mark.openmmlab
@pytest.mark.parametrize(
    ("metric", "change", "message"),
    [
        ({"type": "CocoMetric"}, {"iscrowd": "gone"}, r"annotations\[1\] has no 'iscrowd'"),
        ({"type": "CocoMetric"}, {"area": "gone"}, r"annotations\[1\] has no 'area'"),
        (
            {"type": "CocoMetric", "metric": ["bbox", "segm"]},
            {"segmentation": [[1, 2, 3, 4]]},
            r"annotations\[1\]\.segmentation \(image 2\) is \[\[1, 2, 3, 4\]\]",
        ),
        (
            {"type": "cvplugins.InstanceSegmentationMetric"},
            {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [4]}},
            "sum is 4; expected 2400",
        ),
        ({"type": "cvplugins.DetectionMetric"}, {"bbox": [9, 9, -3, 4]}, "expected a width and a height of at least 0"),
    ],
)
def test_what_metrics_of_mmdet_would_stumble_over_after_an_epoch(tmp_path, metric, change, message):
    written(tmp_path)
    path = written(tmp_path, name="val.json")
    found = mmdet_config(tmp_path, masks=False, val_evaluator={**metric, "ann_file": str(path)})
    check(found)
    written(tmp_path, change, name="val.json")
    with pytest.raises(UserError, match=rf"val\.json: .*{message}"):
        check(found)


@pytest.mark.detectron2
@pytest.mark.parametrize("case", MALFORMED)
def test_detectron2_data(tmp_path, case):
    catalog = pytest.importorskip("detectron2.data")
    from detectron2.config import get_cfg
    from detectron2.data.datasets import register_coco_instances

    from cvplugins.detectron2 import add_cvplugins_config
    from cvplugins.detectron2.data.checks import check_data

    change, message, boxes_are_fine = MALFORMED[case]
    name = f"cvplugins_test_{tmp_path.name}"
    register_coco_instances(name, {}, str(written(tmp_path)), str(tmp_path))
    cfg = get_cfg()
    add_cvplugins_config(cfg)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST, cfg.MODEL.ROI_HEADS.NUM_CLASSES = (name,), (), 2
    try:
        for masks in (False, True):
            cfg.MODEL.MASK_ON = masks
            written(tmp_path)
            check_data(cfg, [name])
            written(tmp_path, change)
            if boxes_are_fine and not masks:
                check_data(cfg, [name])
            else:
                with pytest.raises(UserError, match=rf"a\.json: {message}"):
                    check_data(cfg, [name])
        cfg.MODEL.MASK_ON, cfg.DATASETS.TEST = True, (name,)
        written(tmp_path, {"segmentation": [[1, 2, 3, 4]]})
        with pytest.raises(UserError, match=r"segmentation \(image 2\) is \[\[1, 2, 3, 4\]\]"):
            check_data(cfg, [name])
    finally:
        catalog.DatasetCatalog.remove(name)
        catalog.MetadataCatalog.remove(name)
