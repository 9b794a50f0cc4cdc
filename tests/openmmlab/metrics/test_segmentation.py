"""The segmentation metric as mmengine's evaluator calls it, against mmseg's IoUMetric, on one and several ranks."""

import json

import numpy as np
import pytest
import torch
from helpers import run_ranks

pytestmark = pytest.mark.openmmlab

CLASSES = ("sky", "sea", "boat", "bird", "never")
COUNT = 7


def data_sample(index):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(index)
    label = torch.randint(0, 4, (1, 12, 14 + index % 3), generator=generator)
    wrong = torch.rand(label.shape, generator=generator) < 0.3
    prediction = torch.where(wrong, torch.randint(0, 4, label.shape, generator=generator), label)
    label[:, 0, :4] = 255
    sample = SegDataSample(metainfo=dict(img_path=f"images/{index}.jpg"))
    sample.gt_sem_seg, sample.pred_sem_seg = PixelData(data=label), PixelData(data=prediction)
    return sample


def evaluate_samples(samples, metrics, size=None):
    from mmengine.evaluator import Evaluator
    from mmengine.logging import MMLogger
    from mmengine.registry import DefaultScope, init_default_scope

    MMLogger.get_instance("test")
    init_default_scope("mmseg")
    with DefaultScope.overwrite_default_scope("mmseg"):
        evaluator = Evaluator(metrics)
    evaluator.dataset_meta = dict(classes=CLASSES)
    for sample in samples:
        evaluator.process([sample])
    return evaluator.evaluate(len(samples) if size is None else size)


def test_equals_mmseg():
    metrics = [
        dict(type="cvplugins.SegmentationMetric"),
        dict(type="IoUMetric", iou_metrics=["mIoU", "mDice"]),
    ]
    found = evaluate_samples([data_sample(index) for index in range(COUNT)], metrics)
    for name in ("aAcc", "mIoU", "mAcc", "mDice"):
        assert 100 * found[f"sem_seg/{name}"] == pytest.approx(found[name], abs=0.0051)  # rounded to 2 digits there


def test_numbers_of_each_class_equal_mmseg(tmp_path):
    from mmengine.registry import METRICS
    from mmseg.evaluation import IoUMetric

    samples = [data_sample(index) for index in range(COUNT)]
    metric = METRICS.build(dict(type="cvplugins.SegmentationMetric", out_dir=tmp_path))
    found = evaluate_samples(samples, metric)
    areas = [
        IoUMetric.intersect_and_union(each.pred_sem_seg.data[0], each.gt_sem_seg.data[0], len(CLASSES), 255)
        for each in samples
    ]
    totals = [sum(each).double() for each in zip(*areas, strict=True)]
    expected = IoUMetric.total_area_to_metrics(*totals, ["mIoU", "mDice", "mFscore"])
    written = json.loads(metric.written["results"].read_text())["per_class"]
    for index, name in enumerate(CLASSES):
        for measure in ("IoU", "Acc", "Dice", "Precision", "Recall"):
            value = float(expected[measure][index])
            if name == "never":
                assert np.isnan(value)
                assert written[name][measure] is None
            else:
                assert written[name][measure] == pytest.approx(value, rel=1e-14)
        assert (f"sem_seg/IoU/{name}" in found) == (name != "never")
        assert found.get(f"sem_seg/IoU/{name}") == written[name]["IoU"]
        assert written[name]["labelled_pixels"] == totals[3][index]


def on_a_rank():
    """Evaluate this rank's part, as the test sampler pads it and as it is."""
    from cvplugins.distributed import rank, world_size

    found = []
    for total in (-(-COUNT // world_size()) * world_size(), COUNT):
        own = [data_sample(index % COUNT) for index in range(total)[rank() :: world_size()]]
        found.append(evaluate_samples(own, dict(type="cvplugins.SegmentationMetric"), COUNT))
    return found


@pytest.mark.distributed
@pytest.mark.parametrize("world_size", [2, 8])  # of eight ranks one is idle, or has only a duplicate
def test_padding_counts_once_on_any_number_of_ranks(world_size):
    expected = evaluate_samples([data_sample(i) for i in range(COUNT)], dict(type="cvplugins.SegmentationMetric"))
    assert run_ranks(on_a_rank, world_size) == [[expected, expected]] * world_size


def test_writes_results_and_figures(tmp_path):
    from mmengine.registry import METRICS

    metric = METRICS.build(dict(type="cvplugins.SegmentationMetric", out_dir=tmp_path, boundary=True))
    found = evaluate_samples([data_sample(index) for index in range(3)], metric)
    written = json.loads(metric.written["results"].read_text())
    assert written["mean"]["mIoU"] == found["sem_seg/mIoU"]
    assert np.shape(written["confusion_matrix"]) == (5, 5)
    assert written["settings"]["rule"] == "mmseg"
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        *("sem_seg_figure.png", "sem_seg_figure.svg", "sem_seg_results.json"),
    ]


def test_one_class_by_a_threshold_is_predicted_as_floats():
    samples = [data_sample(index) for index in range(2)]
    expected = evaluate_samples(samples, dict(type="cvplugins.SegmentationMetric"))
    for sample in samples:
        sample.pred_sem_seg.data = sample.pred_sem_seg.data.float()
    assert evaluate_samples(samples, dict(type="cvplugins.SegmentationMetric")) == expected


def test_wrong_label_names_the_image():
    sample = data_sample(0)
    sample.gt_sem_seg.data[0, 5, 5] = 9
    with pytest.raises(ValueError, match=r"image images/0\.jpg: label 9 is no class"):
        evaluate_samples([sample], dict(type="cvplugins.SegmentationMetric"))
