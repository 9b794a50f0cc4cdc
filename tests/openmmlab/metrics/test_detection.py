"""Detection and instance segmentation metrics against mmdet's CocoMetric on the same data samples and file."""

import json

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.openmmlab

CLASSES = ("cat", "dog", "cow")
SIZE = (80, 100)


def polygon(box):
    left, top, right, bottom = box
    return [[left, top, right, top, right, bottom, (left + right) / 2, bottom - 1, left, bottom]]


@pytest.fixture
def scene(tmp_path):
    """An annotation file with crowds and areas of their own, and what a model found there."""
    pytest.importorskip("pycocotools")
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    generator = np.random.default_rng(0)
    content = {
        "images": [dict(id=number, file_name=f"{number}.jpg", height=80, width=100) for number in range(1, 16)],
        "categories": [dict(id=10 * number, name=name) for number, name in enumerate(CLASSES, start=1)],
        "annotations": [],
    }
    samples = []
    for image in content["images"]:
        corner = generator.uniform(0, 50, (4, 2)).round()
        boxes = np.concatenate([corner, corner + generator.uniform(8, 30, (4, 2)).round()], axis=1)
        labels = generator.integers(0, 3, 4)
        crowd = generator.random(4) < 0.25
        for box, label, is_crowd in zip(boxes.tolist(), labels.tolist(), crowd.tolist(), strict=True):
            content["annotations"].append(
                dict(
                    id=len(content["annotations"]) + 1,
                    image_id=image["id"],
                    category_id=10 * (label + 1),
                    bbox=[box[0], box[1], box[2] - box[0], box[3] - box[1]],
                    area=float(generator.choice([100.0, 2000.0, 20000.0])),
                    iscrowd=int(is_crowd),
                    segmentation=polygon(box),
                )
            )
        found = np.clip(boxes + generator.normal(0, 2, boxes.shape), 0, 80)
        sample = DetDataSample(metainfo=dict(img_id=image["id"], ori_shape=SIZE, img_path=image["file_name"]))
        sample.pred_instances = InstanceData(
            bboxes=torch.tensor(found, dtype=torch.float32),
            labels=torch.tensor(np.where(generator.random(4) < 0.2, 1, labels)),
            scores=torch.tensor(generator.random(4), dtype=torch.float32),
            masks=torch.tensor(np.stack([painted(box) for box in found])),
        )
        sample.gt_instances = instances(boxes[~crowd], labels[~crowd])
        sample.ignored_instances = instances(boxes[crowd], labels[crowd])
        samples.append(sample)
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    return samples, str(path)


def instances(boxes, labels):
    from mmdet.structures.mask import PolygonMasks
    from mmengine.structures import InstanceData

    masks = PolygonMasks([[np.array(polygon(box)[0])] for box in boxes], *SIZE)
    return InstanceData(bboxes=torch.tensor(boxes), labels=torch.tensor(labels), masks=masks)


def painted(box):
    plane = np.zeros(SIZE, bool)
    left, top, right, bottom = box.round().astype(int)
    plane[top:bottom, left:right] = True
    return plane


def evaluate(samples, *metrics, size=None):
    from mmengine.evaluator import Evaluator
    from mmengine.logging import MMLogger
    from mmengine.registry import DefaultScope

    MMLogger.get_instance("test")
    with DefaultScope.overwrite_default_scope("mmdet"):
        evaluator = Evaluator(list(metrics))
    evaluator.dataset_meta = dict(classes=CLASSES)
    for start in range(0, len(samples), 4):
        evaluator.process(samples[start : start + 4])
    return evaluator.evaluate(size or len(samples))


@pytest.mark.parametrize(("ours", "theirs"), [("DetectionMetric", "bbox"), ("InstanceSegmentationMetric", "segm")])
def test_equals_coco_metric(scene, ours, theirs):
    samples, path = scene
    found = evaluate(
        samples,
        dict(type=f"cvplugins.{ours}", ann_file=path),
        dict(type="CocoMetric", ann_file=path, metric=theirs, proposal_nums=(1, 10, 100), classwise=True),
    )
    prefix = theirs
    names = {"AP": "mAP", "AP50": "mAP_50", "AP75": "mAP_75", "AP_small": "mAP_s", "AP_medium": "mAP_m"}
    for name, other in names.items():
        # mmdet rounds to three decimals.
        assert found[f"{prefix}/{name}"] == pytest.approx(found[f"coco/{theirs}_{other}"], abs=5.1e-4)
    assert found[f"{prefix}/AP/dog"] == pytest.approx(found["coco/dog_precision"], abs=5.1e-4)
    assert 0.1 < found[f"{prefix}/AP"] < 0.9


def test_equals_coco_metric_whatever_ids_are(scene):
    """Texts as ids, and categories that are not sorted by them."""
    samples, path = scene
    with open(path) as file:
        content = json.load(file)
    for image, sample in zip(content["images"], samples, strict=True):
        image["id"] = f"{image['id']:06d}"
        sample.set_metainfo(dict(img_id=image["id"]))
    names = {10: "z", 20: "b", 30: "a"}
    for category in content["categories"]:
        category["id"] = names[category["id"]]
    for each in content["annotations"]:
        each["image_id"], each["category_id"] = f"{each['image_id']:06d}", names[each["category_id"]]
    with open(path, "w") as file:
        json.dump(content, file)
    found = evaluate(
        samples,
        dict(type="cvplugins.DetectionMetric", ann_file=path),
        dict(type="CocoMetric", ann_file=path, metric="bbox", proposal_nums=(1, 10, 100)),
    )
    for name, other in {"AP": "mAP", "AP50": "mAP_50", "AP75": "mAP_75"}.items():
        assert found[f"bbox/{name}"] == pytest.approx(found[f"coco/bbox_{other}"], abs=5.1e-4)
    assert found["bbox/AP"] > 0.1


def test_categories_in_another_order_than_the_classes(scene):
    """mmdet's labels count by the file, so that names would be swapped."""
    samples, path = scene
    with open(path) as file:
        content = json.load(file)
    content["categories"].reverse()
    with open(path, "w") as file:
        json.dump(content, file)
    with pytest.raises(ValueError, match="its categories have another order than the classes of the dataset"):
        evaluate(samples, dict(type="cvplugins.DetectionMetric", ann_file=path))


@pytest.mark.parametrize("metric", ["DetectionMetric", "InstanceSegmentationMetric"])
def test_loaded_ground_truth_is_that_of_the_file_but_for_sizes(scene, metric):
    samples, path = scene
    from_file = evaluate(samples, dict(type=f"cvplugins.{metric}", ann_file=path))
    loaded = evaluate(samples, dict(type=f"cvplugins.{metric}"))
    assert set(loaded) - {name for name in loaded if "_" in name} <= set(from_file)
    for name in ("AP", "AP50", "AR100", "F1", "FPPI", "AP/cat"):
        prefix = "bbox" if metric == "DetectionMetric" else "segm"
        assert loaded[f"{prefix}/{name}"] == pytest.approx(from_file[f"{prefix}/{name}"], abs=1e-12)


def test_ignored_instances_are_crowds_or_difficult(scene):
    samples, _ = scene
    names = ("difficult", "crowd")
    found = [evaluate(samples, dict(type="cvplugins.DetectionMetric", ignored=name)) for name in names]
    assert found[0]["bbox/AP"] != found[1]["bbox/AP"]
    assert found[1] == evaluate(samples, dict(type="cvplugins.DetectionMetric"))
    voc = evaluate(samples, dict(type="cvplugins.DetectionMetric", rules="voc2007"))
    assert {"bbox/AP50", "bbox/AP50_area", "bbox/AP50/cat"} <= set(voc)


def test_rules_from_a_config(scene):
    samples, _ = scene
    rules = ["detectron2", dict(base="voc2012", iou_comparison=">", iou_thresholds=(0.75,), name="strict")]
    found = evaluate(samples, dict(type="cvplugins.DetectionMetric", rules=rules, prefix="own"))
    assert {"own/AP", "own/AP50", "own/AP75", "own/strict_AP75", "own/precision"} <= set(found)


def test_padding_counts_once(scene):
    samples, _ = scene
    padded = [*samples, *samples[:2]]
    metric = dict(type="cvplugins.DetectionMetric")
    assert evaluate(padded, metric, size=len(samples)) == evaluate(samples, metric)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(rules="coco2017"), "no detection rule is called 'coco2017'"),
        (dict(rules=[dict(base="coco", iou_type="segm")]), "a detection rule has no option 'iou_type'"),
        (dict(ignored="hard"), "ignored is 'hard'; accepted"),
    ],
)
def test_wrong_options_are_named_before_any_work(options, message):
    from mmengine.registry import METRICS

    with pytest.raises(ValueError, match=message):
        METRICS.build(dict(type="cvplugins.DetectionMetric", **options))


def test_wrong_samples_are_named(scene):
    samples, path = scene
    del samples[0].pred_instances.masks
    with pytest.raises(ValueError, match=r"image 1\.jpg: the model predicts no masks"):
        evaluate(samples, dict(type="cvplugins.InstanceSegmentationMetric"))
    del samples[1].gt_instances.masks
    with pytest.raises(ValueError, match=r"image 2\.jpg: no ground truth masks; add with_mask=True"):
        evaluate(samples[1:], dict(type="cvplugins.InstanceSegmentationMetric"))
    samples[2].set_metainfo(dict(img_id=99))
    with pytest.raises(ValueError, match="has no image 99; is it the file of this dataset"):
        evaluate(samples[2:], dict(type="cvplugins.DetectionMetric", ann_file=path))
