"""Metrics as mmengine's evaluator calls them, against mmdet's VOCMetric on the same data samples."""

import json

import numpy as np
import pytest
import torch
from detection_cases import CLASSES, evaluate, random_images

pytestmark = pytest.mark.openmmlab


def data_sample(image, boxes=torch.tensor):
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    sample = DetDataSample(metainfo=dict(img_id=image.image_id, img_path=f"images/{image.image_id:03}.jpg"))
    easy = ~image.difficult
    sample.gt_instances = InstanceData(
        bboxes=boxes(image.truth_boxes[easy]), labels=torch.tensor(image.truth_labels[easy])
    )
    sample.ignored_instances = InstanceData(
        bboxes=boxes(image.truth_boxes[~easy]), labels=torch.tensor(image.truth_labels[~easy])
    )
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor(image.boxes), scores=torch.tensor(image.scores), labels=torch.tensor(image.labels)
    )
    return sample


def evaluate_samples(samples, metric):
    from mmengine.evaluator import Evaluator
    from mmengine.logging import MMLogger
    from mmengine.registry import DefaultScope

    MMLogger.get_instance("test")
    with DefaultScope.overwrite_default_scope("mmdet"):
        evaluator = Evaluator(metric)
    evaluator.dataset_meta = dict(classes=CLASSES)
    for start in range(0, len(samples), 4):
        evaluator.process(samples[start : start + 4])
    return evaluator.evaluate(len(samples))


@pytest.mark.parametrize("mode", ["11points", "area"])
def test_equals_voc_metric(mode):
    samples = [data_sample(image) for image in random_images(0, count=30)]
    metrics = [dict(type="cvplugins.VOCDetectionMetric"), dict(type="VOCMetric", eval_mode=mode)]
    found = evaluate_samples(samples, metrics)
    ours = found["bbox/AP50_11point" if mode == "11points" else "bbox/AP50"]
    np.testing.assert_allclose(ours, found["pascal_voc/mAP"], atol=2e-7)  # float32 there


def test_keys_and_values_are_those_of_the_core():
    images = random_images(1, count=20)
    found = evaluate_samples([data_sample(image) for image in images], dict(type="cvplugins.VOCDetectionMetric"))
    assert found == {f"bbox/{name}": value for name, value in evaluate(images).scalars().items()}
    assert {"bbox/AP50", "bbox/AP50_11point", "bbox/AP", "bbox/AP75", "bbox/AR100", "bbox/AP50/cat"} <= set(found)


def test_box_types_of_mmdet_and_half_precision_are_taken():
    from mmdet.structures.bbox import HorizontalBoxes

    images = random_images(1, count=5)
    samples = [data_sample(image, boxes=lambda value: HorizontalBoxes(torch.tensor(value))) for image in images]
    for sample in samples:
        sample.pred_instances.scores = sample.pred_instances.scores.bfloat16()
    assert "bbox/AP50" in evaluate_samples(samples, dict(type="cvplugins.VOCDetectionMetric"))


def test_writes_results_and_figure(tmp_path):
    from mmengine.registry import METRICS

    metric = METRICS.build(dict(type="cvplugins.VOCDetectionMetric", out_dir=tmp_path, prefix="birds"))
    images = random_images(1, count=20)
    found = evaluate_samples([data_sample(image) for image in images], metric)
    assert set(metric.written) == {"results", "figure", "errors_figure", "confusion_figure"}
    written = json.loads(metric.written["results"].read_text())
    assert written["mean"]["AP50"] == found["birds/AP50"]
    assert set(written["per_class"]) == set(CLASSES)
    assert written["settings"]["rules"]["voc2012"]["iou_comparison"] == ">="
    assert np.array(written["confusion_matrix"]["counts"]).shape == (5, 5)
    assert metric.written["figure"].stat().st_size > 10_000
    assert metric.written["errors_figure"].with_suffix(".svg").read_text().startswith("<?xml")
    assert len(list(tmp_path.iterdir())) == 7


def test_two_images_of_one_id_are_two_images():
    images = random_images(1, count=2)
    samples = [data_sample(image) for image in images]
    samples[1].set_metainfo(dict(img_id=samples[0].img_id))
    assert "bbox/AP50" in evaluate_samples(samples, dict(type="cvplugins.VOCDetectionMetric"))
