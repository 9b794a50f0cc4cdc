"""The chain from files to evaluator in Detectron2, broken by hand; oracle: the unbroken one scores 1."""

import pytest
from annotations import write_devkit

pytestmark = pytest.mark.detectron2

BOXES = ((3, 3, 30, 20), (10, 8, 50, 36), (5, 12, 20, 30))


def prove(folder):
    from cvplugins.detectron2.data.prove import prove

    images = {f"00{number}": [("cat", box), ("dog", BOXES[number - 1])] for number, box in enumerate(BOXES)}
    for year, split in (("VOC2007", "trainval"), ("VOC2007", "test"), ("VOC2012", "trainval")):
        write_devkit(folder, images, split, year)
    return prove("voc_faster_rcnn_sample", {"CVPLUGINS.DATA.ROOT": str(folder)})


def test_a_whole_chain_is_perfect(tmp_path):
    proof = prove(tmp_path)
    assert proof.is_perfect, proof.lines()
    assert (proof.images, proof.objects) == (3, 6)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda box: [each + 1 for each in box], "shifted by (1, 1) pixels"),
        (lambda box: [box[0], box[1], box[2] - box[0], box[3] - box[1]], "xywh as xyxy"),
        (lambda box: [60 - box[2], box[1], 60 - box[0], box[3]], "mirrored left to right"),
    ],
)
def test_boxes_that_training_changes_are_named(tmp_path, monkeypatch, change, text):
    from detectron2.data import DatasetMapper

    whole = DatasetMapper.__call__

    def changed(self, record):
        found = [{**each, "bbox": change(each["bbox"])} for each in record["annotations"]]
        return whole(self, {**record, "annotations": found})

    monkeypatch.setattr(DatasetMapper, "__call__", changed)
    proof = prove(tmp_path)
    assert any(each.step.startswith("mapper") and text in each.text for each in proof.losses), proof.lines()


def test_records_that_lose_objects_are_named(tmp_path, monkeypatch):
    from cvplugins.detectron2.data import prove as module

    whole = module.training_records

    def fewer(cfg):
        return [{**each, "annotations": each["annotations"][1:]} for each in whole(cfg)]

    monkeypatch.setattr(module, "training_records", fewer)
    proof = prove(tmp_path)
    assert proof.below
    assert any(each.step.startswith("records") and each.text == "objects are left out" for each in proof.losses)
