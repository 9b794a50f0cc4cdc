"""The evaluators against Detectron2's own, on the same outputs."""

import json

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.detectron2
CLASSES = ("cat", "dog", "cow")


@pytest.fixture
def coco(tmp_path):
    """A registered dataset with masks and crowds, and what a model found there."""
    data = pytest.importorskip("detectron2.data")
    from detectron2.data.datasets import register_coco_instances

    generator = np.random.default_rng(0)
    content = {
        "info": {},
        "images": [dict(id=number, file_name=f"{number}.jpg", height=80, width=100) for number in range(1, 16)],
        "categories": [dict(id=10 * number, name=name) for number, name in enumerate(CLASSES, start=1)],
        "annotations": [],
    }
    boxes_of = {}
    for image in content["images"]:
        corner = generator.uniform(0, 50, (4, 2)).round()
        boxes = np.concatenate([corner, corner + generator.uniform(8, 30, (4, 2)).round()], axis=1)
        labels = generator.integers(0, 3, 4)
        boxes_of[image["id"]] = boxes, labels
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            left, top, right, bottom = box
            content["annotations"].append(
                dict(
                    id=len(content["annotations"]) + 1,
                    image_id=image["id"],
                    category_id=10 * (label + 1),
                    bbox=[left, top, right - left, bottom - top],
                    area=float(generator.choice([100.0, 2000.0, 20000.0])),
                    iscrowd=0,
                    segmentation=[[left, top, right, top, right, bottom, left, bottom]],
                )
            )
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    name = f"cvplugins_test_{tmp_path.name}"
    register_coco_instances(name, {}, str(path), str(tmp_path))
    data.DatasetCatalog.get(name)
    yield name, *outputs(boxes_of, generator)
    data.DatasetCatalog.remove(name)
    data.MetadataCatalog.remove(name)


def outputs(boxes_of, generator, masks=True):
    from detectron2.structures import Boxes, Instances

    given, found = [], []
    for image_id, (boxes, labels) in boxes_of.items():
        instances = Instances((80, 100))
        moved = np.clip(boxes + generator.normal(0, 2, boxes.shape), 0, 80)
        instances.pred_boxes = Boxes(torch.tensor(moved, dtype=torch.float32))
        instances.scores = torch.tensor(generator.permutation(len(boxes)) / 1000 + image_id / 100, dtype=torch.float32)
        instances.pred_classes = torch.tensor(np.where(generator.random(len(labels)) < 0.2, 1, labels))
        if masks:
            instances.pred_masks = torch.stack([torch.tensor(painted(box)) for box in moved])
        given.append({"image_id": image_id, "file_name": f"{image_id}.jpg", "height": 80, "width": 100})
        found.append({"instances": instances})
    return given, found


def painted(box):
    plane = np.zeros((80, 100), bool)
    left, top, right, bottom = box.round().astype(int)
    plane[top:bottom, left:right] = True
    return plane


def evaluated(evaluator, given, found):
    evaluator.reset()
    for start in range(0, len(given), 4):
        evaluator.process(given[start : start + 4], found[start : start + 4])
    return evaluator.evaluate()


def test_boxes_and_masks_equal_coco_evaluator(coco, tmp_path):
    from detectron2.evaluation import COCOEvaluator

    from cvplugins.detectron2 import CvpluginsDetectionEvaluator, CvpluginsInstanceSegmentationEvaluator

    name, given, found = coco
    theirs = evaluated(
        COCOEvaluator(name, ("bbox", "segm"), distributed=False, use_fast_impl=False, output_dir=str(tmp_path)),
        given,
        found,
    )
    for evaluator, task in (
        (CvpluginsDetectionEvaluator(name, out_dir=tmp_path), "bbox"),
        (CvpluginsInstanceSegmentationEvaluator(name), "segm"),
    ):
        ours = evaluated(evaluator, given, found)[task]
        names = {"AP": "AP", "AP50": "AP50", "AP75": "AP75", "APs": "AP_small", "APm": "AP_medium", "APl": "AP_large"}
        for other, own in names.items():
            assert 100 * ours[own] == pytest.approx(theirs[task][other], abs=1e-9)
        assert 100 * ours["AP/dog"] == pytest.approx(theirs[task]["AP-dog"], abs=1e-9)
    assert json.loads((tmp_path / "bbox_results.json").read_text())["mean"]["AP"] > 0.1


@pytest.mark.parametrize("year", [2007, 2012])
def test_boxes_equal_voc_evaluator(sample, year, tmp_path):
    data = pytest.importorskip("detectron2.data")
    from detectron2.data.datasets import register_pascal_voc
    from detectron2.evaluation import PascalVOCDetectionEvaluator

    from cvplugins.datasets import VOC_CLASSES
    from cvplugins.detectron2 import CvpluginsDetectionEvaluator

    name = f"cvplugins_test_{tmp_path.name}"
    register_pascal_voc(name, str(sample / "VOC2007"), "test", year)
    try:
        generator, boxes_of, present = np.random.default_rng(0), {}, set()
        for record in data.DatasetCatalog.get(name):
            boxes = np.array([each["bbox"] for each in record["annotations"]]).reshape(-1, 4)
            labels = np.array([each["category_id"] for each in record["annotations"]], int)
            boxes_of[record["image_id"]] = boxes, labels
            present |= set(labels.tolist())
        given, found = outputs({number: each for number, each in enumerate(boxes_of.values())}, generator, masks=False)
        for entry, image_id in zip(given, boxes_of, strict=True):
            entry["image_id"] = image_id
        # Detectron2 divides by 0 for a class that is nowhere labelled.
        data.MetadataCatalog.get(name).thing_classes  # noqa: B018
        ours = evaluated(CvpluginsDetectionEvaluator(name), given, found)["bbox"]
        per_class = [f"AP/{VOC_CLASSES[label]}" in ours for label in sorted(present)]
        theirs = voc_ap_per_class(PascalVOCDetectionEvaluator(name), given, found, sorted(present))
        assert any(per_class)
        for label, expected in theirs.items():
            if np.isfinite(expected):
                assert ours[f"AP/{VOC_CLASSES[label]}"] == pytest.approx(expected, abs=1e-12)
    finally:
        data.DatasetCatalog.remove(name)
        data.MetadataCatalog.remove(name)


def voc_ap_per_class(evaluator, given, found, labels):
    """Detectron2's function for one class, at each of its thresholds."""
    import tempfile
    from pathlib import Path

    from detectron2.evaluation.pascal_voc_evaluation import voc_eval

    evaluator.reset()
    evaluator.process(given, found)
    with tempfile.TemporaryDirectory() as folder:
        aps = {}
        for label in labels:
            name = evaluator._class_names[label]
            Path(folder, f"{name}.txt").write_text("\n".join(evaluator._predictions.get(label, [""])))
            if label not in evaluator._predictions:
                continue
            with np.errstate(divide="ignore", invalid="ignore"):
                found_aps = [
                    voc_eval(
                        str(Path(folder, "{}.txt")),
                        evaluator._anno_file_template,
                        evaluator._image_set_path,
                        name,
                        ovthresh=threshold / 100,
                        use_07_metric=evaluator._is_2007,
                    )[2]
                    for threshold in range(50, 100, 5)
                ]
            aps[label] = np.mean(found_aps)
    return aps


def test_label_maps_equal_sem_seg_evaluator(tmp_path):
    data = pytest.importorskip("detectron2.data")
    from detectron2.evaluation import SemSegEvaluator
    from PIL import Image

    from cvplugins.detectron2 import CvpluginsSegmentationEvaluator

    name, generator = f"cvplugins_test_{tmp_path.name}", np.random.default_rng(0)
    records, found = [], []
    for number in range(4):
        label = generator.integers(0, 3, (20, 30)).astype(np.uint8)
        label[:2] = 255
        path = tmp_path / f"{number}.png"
        Image.fromarray(label).save(path)
        records.append({"file_name": f"{number}.jpg", "sem_seg_file_name": str(path)})
        found.append({"sem_seg": torch.tensor(generator.random((4, 20, 30)))})
    data.DatasetCatalog.register(name, lambda: records)
    data.MetadataCatalog.get(name).set(stuff_classes=["sky", "sea", "rock", "never"], ignore_label=255)
    try:
        theirs = evaluated(SemSegEvaluator(name, distributed=False), records, found)["sem_seg"]
        ours = evaluated(CvpluginsSegmentationEvaluator(name, out_dir=tmp_path / "out"), records, found)["sem_seg"]
    finally:
        data.DatasetCatalog.remove(name)
        data.MetadataCatalog.remove(name)
    for other, own in {"mIoU": "mIoU", "fwIoU": "fwIoU", "mACC": "mAcc", "pACC": "aAcc", "IoU-sky": "IoU/sky"}.items():
        assert 100 * ours[own] == pytest.approx(theirs[other], abs=1e-9)
    assert (tmp_path / "out" / "sem_seg_figure.svg").stat().st_size > 1000


def decimal_outputs(content, results):
    """What a model found, in float32."""
    from detectron2.structures import Boxes, Instances

    given, found = [], []
    for image in content["images"]:
        own = [each for each in results if each["image_id"] == image["id"]]
        boxes = np.array([each["bbox"] for each in own], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances = Instances((640, 640))
        instances.pred_boxes = Boxes(torch.tensor(boxes))
        instances.scores = torch.tensor([each["score"] for each in own], dtype=torch.float32)
        instances.pred_classes = torch.tensor([each["category_id"] // 10 - 1 for each in own], dtype=torch.int64)
        given.append({"image_id": image["id"]})
        found.append({"instances": instances})
    return given, found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("source", ["json", "records"])
def test_decimal_coordinates_and_ties_equal_coco_evaluator(tmp_path, source, seed):
    """Overlaps on the thresholds, from a file and from records alone, which COCOEvaluator converts and rounds."""
    data = pytest.importorskip("detectron2.data")
    from decimal_cases import decimal_content
    from detectron2.data.datasets import register_coco_instances
    from detectron2.evaluation import COCOEvaluator
    from detectron2.structures import BoxMode

    from cvplugins.detectron2 import CvpluginsDetectionEvaluator

    content, results = decimal_content(seed)
    name = f"cvplugins_test_{tmp_path.name}"
    if source == "json":
        (tmp_path / "annotations.json").write_text(json.dumps(content))
        register_coco_instances(name, {}, str(tmp_path / "annotations.json"), str(tmp_path))
        data.DatasetCatalog.get(name)
    else:
        records = [coco_record(image, content, BoxMode) for image in content["images"]]
        data.DatasetCatalog.register(name, lambda: records)
        data.MetadataCatalog.get(name).set(thing_classes=list(CLASSES))
    try:
        ours = evaluated(CvpluginsDetectionEvaluator(name), *decimal_outputs(content, results))["bbox"]
        options = dict(distributed=False, use_fast_impl=False, output_dir=str(tmp_path))
        theirs = evaluated(COCOEvaluator(name, ("bbox",), **options), *decimal_outputs(content, results))["bbox"]
    finally:
        data.DatasetCatalog.remove(name)
        data.MetadataCatalog.remove(name)
    names = {"AP": "AP", "AP50": "AP50", "AP75": "AP75", "APs": "AP_small", "APm": "AP_medium", "APl": "AP_large"}
    for other, own in (names | {f"AP-{name}": f"AP/{name}" for name in CLASSES}).items():
        assert 100 * ours[own] == pytest.approx(theirs[other], abs=1e-10)


def coco_record(image, content, modes):
    """A record of Detectron2; boxes of odd objects by their corners, every third object with an outline."""
    annotations = []
    for number, each in enumerate(one for one in content["annotations"] if one["image_id"] == image["id"]):
        x, y, width, height = each["bbox"]
        right, bottom = x + width, y + height
        annotation = dict(bbox=each["bbox"], bbox_mode=modes.XYWH_ABS)
        if number % 2:
            annotation = dict(bbox=[x, y, right, bottom], bbox_mode=modes.XYXY_ABS)
        if number % 3 == 0:
            annotation["segmentation"] = [[x, y, right, y, right, bottom]]
        annotations.append({**annotation, "iscrowd": each["iscrowd"], "category_id": each["category_id"] // 10 - 1})
    return {**image, "image_id": image["id"], "annotations": annotations}


def test_wrong_use_is_named(coco, tmp_path):
    data = pytest.importorskip("detectron2.data")
    from cvplugins.detectron2 import CvpluginsDetectionEvaluator, CvpluginsInstanceSegmentationEvaluator
    from cvplugins.errors import UserError

    name, given, found = coco
    with pytest.raises(ValueError, match="no detection rule is called 'voc'"):
        CvpluginsDetectionEvaluator(name, rules=["voc"])
    with pytest.raises(UserError, match="image 99 is none of the dataset's"):
        CvpluginsDetectionEvaluator(name).process([{"image_id": 99}], found[:1])
    found[0]["instances"].remove("pred_masks")
    with pytest.raises(UserError, match="image 1: the model predicts no masks"):
        CvpluginsInstanceSegmentationEvaluator(name).process(given[:1], found[:1])
    plain = f"{name}_plain"
    data.DatasetCatalog.register(plain, list)
    try:
        with pytest.raises(UserError, match="names no thing_classes"):
            CvpluginsDetectionEvaluator(plain)
    finally:
        data.DatasetCatalog.remove(plain)
        data.MetadataCatalog.remove(plain)
