"""docs/agreement.md, and what it claims: the frameworks' own losses and metrics are the oracle."""

import json
import warnings

import pytest

pytestmark = [pytest.mark.openmmlab, pytest.mark.detectron2]
NEEDED = ("mmdet", "mmseg", "detectron2")


@pytest.fixture(scope="module")
def comparisons():
    for package in NEEDED:
        pytest.importorskip(package)
    import agreement_metrics

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the frameworks
        return agreement_metrics.metric_comparisons()


@pytest.mark.slow
def test_page_is_up_to_date(comparisons):
    import make_agreement

    expected = make_agreement.page(comparisons)
    assert make_agreement.PAGE.read_text(encoding="utf-8") == expected, "run python docs/make_agreement.py"


@pytest.mark.slow
def test_metrics_equal_each_frameworks_own(comparisons):
    for each in comparisons:
        # mmdet's VOCMetric computes in float32.
        rounding = 1e-5 if each.decimals is None else 0.51 * 10**-each.decimals
        assert each.as_detectron2 == pytest.approx(each.detectron2, abs=1e-9), each.number
        if each.openmmlab is not None:
            assert each.as_openmmlab == pytest.approx(each.openmmlab, abs=rounding), each.number


def test_losses_differ_only_where_the_page_says_so():
    for package in NEEDED:
        pytest.importorskip(package)
    from agreement_losses import CASES, compare

    for case in CASES:
        _, of_value, of_gradient = compare(case)
        assert (max(of_value, of_gradient) > 1e-6) == bool(case.differs), case.name


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Runs both adapters on the same detections and returns the JSON files that they write, without figures."""
    for package in NEEDED:
        pytest.importorskip(package)
    from agreement_inputs import detectron2_dataset, detectron2_outputs

    from cvplugins.datasets import VOC_CLASSES
    from cvplugins.detectron2 import CvpluginsDetectionEvaluator
    from cvplugins.metrics import DetectionResult
    from cvplugins.openmmlab.metrics import detection as detection_metric
    from cvplugins.reporting import REPORTS, Report, detection_table

    monkeypatch.setitem(REPORTS, DetectionResult, Report(detection_table))

    def _results(found, samples, rules, ann_file=None, **dataset):
        metric = detection_metric.DetectionMetric(rules=rules, ann_file=ann_file, out_dir=tmp_path / "openmmlab")
        metric.dataset_meta = {"classes": VOC_CLASSES}
        metric.process({}, samples)
        metric.compute_metrics(metric.results)
        with detectron2_dataset(f"cvplugins_{tmp_path.name}", json_file=ann_file, **dataset) as name:
            evaluator = CvpluginsDetectionEvaluator(name, rules=rules, out_dir=tmp_path / "detectron2")
            evaluator.process(*detectron2_outputs(found))
            evaluator.evaluate()
        files = (tmp_path / framework / "bbox_results.json" for framework in ("openmmlab", "detectron2"))
        return [json.loads(path.read_text(encoding="utf-8")) for path in files]

    return _results


def corners(*files):
    """Take from JSON files in which coordinates the boxes were, which is all that may differ."""
    return [content["settings"].pop("corners") for content in files]


def test_the_same_detections_give_the_same_json_of_voc(results):
    """Each adapter in its framework's coordinates, with the ground truth that its framework reads."""
    from agreement_inputs import mmdet_samples, noisy_detections

    found = noisy_detections()
    in_openmmlab, in_detectron2 = results(found, mmdet_samples(found), ["voc2007", "voc2012"], year=2007)
    assert in_openmmlab["mean"]["AP50"] > 0.3
    assert corners(in_openmmlab, in_detectron2) == ["pixels", "edges"]
    assert in_openmmlab == in_detectron2


def test_the_same_detections_give_the_same_json_of_coco(results, tmp_path):
    """COCO's boxes are the same numbers in both frameworks."""
    from agreement_inputs import coco_file, coco_samples, noisy_detections

    path = tmp_path / "coco.json"
    numbers = coco_file(path)
    found = {numbers[image]: each for image, each in noisy_detections().items()}
    in_openmmlab, in_detectron2 = results(found, coco_samples(found), ["coco"], ann_file=path)
    assert in_openmmlab["mean"]["AP"] > 0.1
    corners(in_openmmlab, in_detectron2)  # they make no difference to COCO's rules
    assert in_openmmlab == in_detectron2
