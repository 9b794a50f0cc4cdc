"""COCO's files as tools write them, in Detectron2: COCOEvaluator's numbers, and predictions that evaluate reads."""

import json

import pytest
import torch
from coco_files import coco_files, with_ids

pytestmark = pytest.mark.detectron2
NAMES = {"AP": "AP", "AP50": "AP50", "AP75": "AP75", "APs": "AP_small", "APm": "AP_medium", "APl": "AP_large"}


@pytest.fixture
def registered(tmp_path):
    data = pytest.importorskip("detectron2.data")
    pytest.importorskip("pycocotools")
    from detectron2.data.datasets import register_coco_instances

    name = f"cvplugins_test_{tmp_path.name}"

    def register(annotations):
        (tmp_path / "truth.json").write_text(json.dumps({"info": {}, **annotations}))
        register_coco_instances(name, {}, str(tmp_path / "truth.json"), str(tmp_path))
        return name, data.DatasetCatalog.get(name)

    yield register
    data.DatasetCatalog.remove(name)
    data.MetadataCatalog.remove(name)


def outputs(name, records, results):
    """Return what a model would have to say for these results; labels count by sorted ids."""
    from detectron2.data import MetadataCatalog
    from detectron2.structures import Boxes, Instances

    number_of = MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id
    found = []
    for record in records:
        own = [each for each in results if each["image_id"] == record["image_id"]]
        boxes = torch.tensor([each["bbox"] for each in own], dtype=torch.float32)
        boxes[:, 2:] += boxes[:, :2]
        instances = Instances((record["height"], record["width"]))
        instances.pred_boxes = Boxes(boxes)
        instances.scores = torch.tensor([each["score"] for each in own])
        instances.pred_classes = torch.tensor([number_of[each["category_id"]] for each in own])
        found.append({"instances": instances})
    return found


FILES = coco_files()
AS_WRITTEN = {
    "categories not sorted by id": FILES,
    "words as ids": with_ids(FILES, "{:06d}".format, "class {}".format),
    "two categories of one name": (
        {**FILES[0], "categories": [{**each, "name": "animal"} for each in FILES[0]["categories"]]},
        FILES[1],
    ),
}


@pytest.mark.parametrize("case", AS_WRITTEN)
def test_numbers_equal_coco_evaluator(registered, tmp_path, case):
    from detectron2.evaluation import COCOEvaluator

    from cvplugins.detectron2 import CvpluginsDetectionEvaluator
    from cvplugins.detectron2.metrics.predictions import DumpPredictions
    from cvplugins.evaluation import evaluate_detections, read_detections, read_truths

    annotations, results = AS_WRITTEN[case]
    name, records = registered(annotations)
    found = outputs(name, records, results)
    theirs = COCOEvaluator(name, ("bbox",), distributed=False, use_fast_impl=False, output_dir=str(tmp_path))
    ours, dump = CvpluginsDetectionEvaluator(name), DumpPredictions(name, tmp_path / "found.pkl")
    for evaluator in (theirs, ours, dump):
        evaluator.reset()
        evaluator.process(records, found)
    expected = theirs.evaluate()["bbox"]
    assert expected["AP"] > 10
    got = ours.evaluate()["bbox"]
    dump.evaluate()
    truths = read_truths(tmp_path / "truth.json")
    saved = read_detections(tmp_path / "found.pkl", truths, trust_pickle=True)
    scalars = evaluate_detections(saved, truths).scalars()
    for their, own in NAMES.items():
        assert 100 * got.get(own, float("nan")) == pytest.approx(expected[their], abs=1e-9, nan_ok=True)
        assert 100 * scalars.get(own, float("nan")) == pytest.approx(expected[their], abs=1e-9, nan_ok=True)
    if case != "two categories of one name":
        for category in ("dog", "cat", "cow"):
            assert 100 * got[f"AP/{category}"] == pytest.approx(expected[f"AP-{category}"], abs=1e-9)
            assert 100 * scalars[f"AP/{category}"] == pytest.approx(expected[f"AP-{category}"], abs=1e-9)
