"""The metric of boxes against mmdet's CocoMetric, to the last bits: decimal coordinates, ties, and 1,000 detections."""

import json

import numpy as np
import pytest
import torch
from decimal_cases import CLASSES, NAMES, decimal_content, defined

pytestmark = pytest.mark.openmmlab
OF_MMDET = (*NAMES[:6], "AR100", "AR300", "AR1000", *NAMES[9:])


@pytest.fixture
def stats(monkeypatch):
    """Return what keeps the COCOeval of the next CocoMetric, whose numbers it rounds to three decimals."""
    pytest.importorskip("pycocotools")
    from mmdet.evaluation.metrics import coco_metric

    kept = []

    class Kept(coco_metric.COCOeval):
        def summarize(self):
            super().summarize()
            kept.append(self)

    monkeypatch.setattr(coco_metric, "COCOeval", Kept)
    return kept


def scene(folder, seed, **options):
    """Write the annotations; return the file and the samples of a dataset, with what a model found in float32."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    content, results = decimal_content(seed, **options)
    (folder / "annotations.json").write_text(json.dumps(content))
    samples = []
    for image in content["images"]:
        found = [each for each in results if each["image_id"] == image["id"]]
        boxes = np.array([each["bbox"] for each in found], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        objects = [each for each in content["annotations"] if each["image_id"] == image["id"]]
        meta = dict(
            img_id=image["id"],
            img_path=image["file_name"],
            ori_shape=(640, 640),
            instances=[
                dict(
                    bbox=[x, y, x + width, y + height],
                    bbox_label=each["category_id"] // 10 - 1,
                    ignore_flag=each["iscrowd"],
                )
                for each in objects
                for x, y, width, height in [each["bbox"]]
            ],
        )
        sample = DetDataSample(metainfo=meta)
        sample.pred_instances = InstanceData(
            bboxes=torch.tensor(boxes),
            labels=torch.tensor([each["category_id"] // 10 - 1 for each in found], dtype=torch.int64),
            scores=torch.tensor([each["score"] for each in found], dtype=torch.float32),
        )
        samples.append(sample.to_dict())
    return str(folder / "annotations.json"), samples


def evaluated(metric, samples):
    from mmengine.logging import MMLogger

    MMLogger.get_instance("test")
    metric.dataset_meta = {"classes": CLASSES}
    metric.process({}, samples)
    return {name: float(value) for name, value in metric.compute_metrics(metric.results).items()}


@pytest.mark.parametrize("from_file", [True, False], ids=["ann_file", "instances"])
@pytest.mark.parametrize("seed", range(4))
def test_equals_coco_metric_to_the_last_bits(tmp_path, stats, seed, from_file):
    """File names sort otherwise than the image ids, and scores are tied: pycocotools goes by the ids."""
    from mmdet.evaluation import CocoMetric

    from cvplugins.openmmlab.metrics.detection import DetectionMetric

    path, samples = scene(tmp_path, seed)
    path = path if from_file else None
    found = evaluated(DetectionMetric(rules=["coco"], ann_file=path), samples)
    evaluated(CocoMetric(ann_file=path, proposal_nums=(1, 10, 100)), samples)
    expected = defined(stats[0].stats)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_preset_gives_its_default_numbers(tmp_path, stats):
    from mmdet.evaluation import CocoMetric

    from cvplugins.openmmlab.metrics.detection import DetectionMetric

    path, samples = scene(tmp_path, 3, num_images=3, copies=300, most_objects=12)
    found = evaluated(DetectionMetric(rules=["coco_mmdet"], ann_file=path), samples)
    rounded = evaluated(CocoMetric(ann_file=path, classwise=True), samples)
    expected = defined(stats[0].stats, OF_MMDET)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    for name in CLASSES:
        assert found[f"AP/{name}"] == pytest.approx(rounded[f"{name}_precision"], abs=5.1e-4)
    of_coco = evaluated(DetectionMetric(rules=["coco"], ann_file=path), samples)
    assert found["AP_medium"] != of_coco["AP_medium"]


def test_joined_datasets_may_share_image_ids(tmp_path):
    """Of two images of one id the path decides, so that no image is lost."""
    from cvplugins.openmmlab.metrics.detection import DetectionMetric

    _, samples = scene(tmp_path, 0)
    joined = [*samples, *({**each, "img_path": f"other/{each['img_path']}"} for each in samples)]
    single, double = (evaluated(DetectionMetric(), each) for each in (samples, joined))
    assert double["AR100"] == pytest.approx(single["AR100"], abs=1e-12)
