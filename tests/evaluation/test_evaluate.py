"""tools/evaluate.py on files of each kind, against the metrics on the same arrays."""

import dataclasses
import importlib.util
import json
import pickle
import sys

import numpy as np
import pytest
from detection_cases import evaluate, random_images

from cvplugins.datasets import VOC_CLASSES
from cvplugins.metrics import SegmentationMetric

CLASSES = ("cat", "dog", "cow", "bus")


@pytest.fixture
def tool(root, tmp_path, monkeypatch, capsys):
    """Run the tool; return its exit code, its output and its error line."""
    spec = importlib.util.spec_from_file_location("tool_evaluate", root / "tools" / "evaluate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, arguments)])
        code = module.main()
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def images():
    # COCO's files with a box whose ends are swapped, of negative width, are refused.
    return [
        dataclasses.replace(each, boxes=in_order(each.boxes), truth_boxes=in_order(each.truth_boxes))
        for each in random_images(0, count=20, whole_pixels=True, crowds=True)
    ]


def in_order(boxes):
    ends = np.sort(boxes.reshape(-1, 2, 2), axis=1)
    return ends.reshape(-1, 4)


@pytest.fixture
def coco(tmp_path, images):
    """COCO annotations and results of the images."""
    content = {
        "images": [dict(id=each.image_id, file_name=f"{each.image_id}.jpg", height=200, width=200) for each in images],
        "categories": [dict(id=number + 5, name=name) for number, name in enumerate(CLASSES)],
        "annotations": [
            dict(image_id=each.image_id, category_id=int(label) + 5, bbox=xywh(box), area=area, iscrowd=int(crowd))
            for each in images
            for box, label, area, crowd in zip(
                each.truth_boxes, each.truth_labels, each.truth_areas, each.crowd, strict=True
            )
        ],
    }
    results = [
        dict(image_id=each.image_id, category_id=int(label) + 5, bbox=xywh(box), score=float(score))
        for each in images
        for box, label, score in zip(each.boxes, each.labels, each.scores, strict=True)
    ]
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    (tmp_path / "results.json").write_text(json.dumps(results))
    return tmp_path / "annotations.json", tmp_path / "results.json"


def xywh(box):
    left, top, right, bottom = box.tolist()
    return [left, top, right - left, bottom - top]


def without_difficult(images):
    return [dataclasses.replace(each, difficult=None) for each in images]


def test_coco_files(tool, coco, images, tmp_path):
    annotations, results = coco
    out = tmp_path / "out"
    code, printed, errors = tool(results, "--annotations", annotations, "--out-dir", out, "--score-threshold", 0.3)
    assert (code, errors) == (0, "")
    expected = evaluate(without_difficult(images), CLASSES, rules=["coco"], score_threshold=0.3)
    written = json.loads((out / "bbox_results.json").read_text())
    assert written["mean"] == pytest.approx(expected.scalars(), abs=1e-12)
    assert written["confusion_matrix"]["counts"] == expected.errors.confusion.tolist()
    assert f"{100 * expected.scalars()['AP75']:.1f}" in printed
    assert sorted(path.suffix for path in out.iterdir()) == [".json", *[".png"] * 3, *[".svg"] * 3]


def test_masks_of_coco_files(tool, coco, tmp_path):
    pytest.importorskip("pycocotools")
    annotations, results = coco
    for path, key in ((annotations, "annotations"), (results, None)):
        content = json.loads(path.read_text())
        if key is None:
            content = [entry for entry in content if min(entry["bbox"][2:]) >= 1]  # others have no mask
        for entry in content[key] if key else content:
            left, top, width, height = entry["bbox"]
            right, bottom = left + width, top + height
            entry["segmentation"] = [[left, top, right, top, right, bottom, left, bottom]]
        path.write_text(json.dumps(content))
    _, masks, _ = tool(results, "--annotations", annotations)
    code, boxes, _ = tool(results, "--annotations", annotations, "--boxes")
    assert code == 0
    assert masks == boxes  # they cover the same pixels
    content = json.loads(results.read_text())
    for entry in content:
        entry["segmentation"][0] = entry["segmentation"][0][:6]  # a triangle
    results.write_text(json.dumps(content))
    assert tool(results, "--annotations", annotations)[1] != masks
    assert tool(results, "--annotations", annotations, "--boxes")[1] == boxes


def test_voc_text_files(tool, real_voc, tmp_path):
    """The real detections, written as the devkit wants them."""
    from real_photographs import real_images

    annotations = real_voc / "VOCdevkit" / "VOC2007"
    ids = (annotations / "ImageSets" / "Main" / "test.txt").read_text().split()
    images = [each for each in real_images(real_voc) if each.image_id in ids]
    folder = tmp_path / "results"
    write_comp4(folder, images)
    out = tmp_path / "out"
    code, _, errors = tool(folder, "--annotations", annotations, "--split", "test", "--out-dir", out)
    assert (code, errors) == (0, "")
    expected = evaluate(images, VOC_CLASSES, rules=["voc2007", "voc2012", "coco"])
    assert json.loads((out / "bbox_results.json").read_text())["mean"] == expected.scalars()


def write_comp4(folder, images):
    folder.mkdir()
    for label, name in enumerate(VOC_CLASSES):
        lines = [
            f"{each.image_id} {score} {' '.join(str(side + 1) for side in box)}\n"
            for each in images
            for box, score, own in zip(each.boxes, each.scores, each.labels, strict=True)
            if own == label
        ]
        (folder / f"comp4_det_test_{name}.txt").write_text("".join(lines))


def test_mmdet_pickle_only_when_trusted(tool, coco, images, tmp_path):
    torch = pytest.importorskip("torch")
    annotations, _ = coco
    samples = [
        dict(
            img_id=each.image_id,
            pred_instances=dict(
                bboxes=torch.tensor(each.boxes), scores=torch.tensor(each.scores), labels=torch.tensor(each.labels)
            ),
        )
        for each in images
    ]
    path = tmp_path / "results.pkl"
    path.write_bytes(pickle.dumps(samples))
    code, printed, errors = tool(path, "--annotations", annotations)
    assert (code, printed) == (2, "")
    assert "runs whatever code is in it; give --trust-pickle" in errors
    out = tmp_path / "out"
    assert tool(path, "--annotations", annotations, "--trust-pickle", "--out-dir", out)[0] == 0
    expected = evaluate(without_difficult(images), CLASSES, rules=["coco"])
    assert json.loads((out / "bbox_results.json").read_text())["mean"] == expected.scalars()


@pytest.fixture
def label_images(tmp_path):
    """Label images as ADE20K has them, with 0 for no class, and predictions from 0 on."""
    image = pytest.importorskip("PIL.Image")
    generator = np.random.default_rng(0)
    metric = SegmentationMetric(["sky", "sea", "rock"])
    for name, size in (("a", (40, 50)), ("deep/b", (30, 20))):
        label = generator.integers(0, 4, size).astype(np.uint8)
        prediction = np.where(generator.random(size) < 0.7, np.maximum(label, 1) - 1, 2).astype(np.uint8)
        for folder, values in (("labels", label), ("predictions", prediction)):
            path = tmp_path / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = image.fromarray(values)
            if folder == "predictions":
                picture.putpalette(list(range(256)) * 3)
            picture.save(path)
        metric.update(name, np.where(label == 0, 255, label.astype(int) - 1), prediction)
    return tmp_path, metric.compute().scalars()


def test_label_images(tool, label_images, tmp_path):
    folder, expected = label_images
    (tmp_path / "classes.txt").write_text("sky\nsea\n\nrock\n")
    arguments = (folder / "predictions", "--annotations", folder / "labels", "--reduce-zero-label", "labels")
    out = tmp_path / "out"
    code, printed, errors = tool(*arguments, "--classes", tmp_path / "classes.txt", "--out-dir", out)
    assert (code, errors) == (0, "")
    assert f"{100 * expected['mIoU']:.2f}" in printed
    assert json.loads((out / "sem_seg_results.json").read_text())["mean"]["mIoU"] == expected["mIoU"]


def test_mistakes_of_label_images(tool, label_images):
    image = pytest.importorskip("PIL.Image")
    folder, _ = label_images
    common = (folder / "predictions", "--annotations", folder / "labels")
    cases = [
        ((*common,), "give --classes"),
        ((*common, "--classes", "sky", "sea"), "is no class; there are 2"),
        ((*common, "--classes", "nowhere.txt"), "nowhere.txt: cannot read the file"),
        ((*common, "--classes", "a", "--iou-thresholds", "0.3"), "label images have no IoU thresholds"),
    ]
    for arguments, message in cases:
        code, _, errors = tool(*arguments)
        assert code == 2
        assert message in errors
    (folder / "labels" / "a.png").rename(folder / "labels" / "c.png")
    assert "has no label for a.png (1 are missing)" in tool(*common, "--classes", "a", "b", "c")[2]
    image.new("RGB", (5, 5)).save(folder / "labels" / "a.png")
    (folder / "labels" / "c.png").unlink()
    assert "holds colours (3 channels)" in tool(*common, "--classes", "a", "b", "c")[2]


def test_mistakes_of_detections(tool, coco, tmp_path, sample):
    annotations, results = coco
    voc = sample / "VOC2007"
    (tmp_path / "empty").mkdir()
    cases = [
        ((tmp_path / "nowhere.json", "--annotations", annotations), "nowhere.json: does not exist"),
        ((results, "--annotations", tmp_path / "nowhere"), "nowhere: does not exist"),
        ((results, "--annotations", tmp_path), "neither a .json file nor a folder of PASCAL VOC's layout"),
        ((results, "--annotations", voc), "which images? Give --split; there are"),
        ((results, "--annotations", voc, "--split", "test"), "need COCO annotations"),
        ((results, "--annotations", annotations, "--split", "test"), "has no split 'test'"),
        ((results, "--annotations", annotations, "--rules", "voc"), "no detection rule is called 'voc'"),
        ((results, "--annotations", annotations, "--classes", "zebra"), "has no category 'zebra'"),
        ((annotations, "--annotations", annotations), "are these annotations?"),
        ((tmp_path / "empty", "--annotations", annotations), "expected one file of class cat"),
    ]
    for arguments, message in cases:
        code, printed, errors = tool(*arguments)
        assert (code, printed) == (2, "")
        assert message in errors
        assert len(errors.splitlines()) == 1


def test_broken_voc_text_is_named(tool, tmp_path, sample):
    for name in VOC_CLASSES:
        (tmp_path / f"comp4_det_test_{name}.txt").write_text("000001 0.5 1 2 3\n" if name == "dog" else "")
    code, _, errors = tool(tmp_path, "--annotations", sample / "VOC2007", "--split", "test")
    assert code == 2
    assert "comp4_det_test_dog.txt, line 1: expected image, score, xmin" in errors


def test_iou_thresholds(tool, coco, tmp_path, real_voc):
    """At an IoU of 0.3, as some sets are evaluated: the metric on the same arrays is the oracle."""
    annotations, results = coco
    code, printed, _ = tool(results, "--annotations", annotations, "--iou-thresholds", 0.5, 0.3, "--out-dir", tmp_path)
    assert code == 0
    assert printed.split("\n")[0].split()[3:7] == ["AP", "AP30", "AP50", "AR100"]
    written = json.loads((tmp_path / "bbox_results.json").read_text())
    assert written["settings"]["rules"]["coco"]["iou_thresholds"] == [0.3, 0.5]
    assert written["mean"]["AP"] == pytest.approx((written["mean"]["AP30"] + written["mean"]["AP50"]) / 2)
    assert written["mean"]["AP30"] > written["mean"]["AP50"]

    from real_photographs import real_images

    folder = real_voc / "VOCdevkit" / "VOC2007"
    ids = (folder / "ImageSets" / "Main" / "test.txt").read_text().split()
    images = [each for each in real_images(real_voc) if each.image_id in ids]
    write_comp4(tmp_path / "comp4", images)
    arguments = (tmp_path / "comp4", "--annotations", folder, "--split", "test", "--rules", "voc2007")
    assert tool(*arguments, "--iou-thresholds", 0.3, "--out-dir", tmp_path)[0] == 0
    rule = {"base": "voc2007", "iou_thresholds": (0.3,), "name": "voc2007"}
    expected = evaluate(images, VOC_CLASSES, rules=[rule]).scalars()
    assert json.loads((tmp_path / "bbox_results.json").read_text())["mean"] == expected
    assert {"AP30", "AP30_area", "AP30/dog"} <= set(expected)


@pytest.mark.parametrize("wrong", ["0", "1.5", "nan", "-0.5"])
def test_iou_thresholds_that_are_none(tool, coco, wrong):
    code, printed, errors = tool(coco[1], "--annotations", coco[0], "--iou-thresholds", wrong)
    assert (code, printed) == (2, "")
    assert errors == f"error: --iou-thresholds: {wrong} is no overlap; give numbers above 0, up to 1, such as 0.5\n"


@pytest.mark.openmmlab
def test_what_mmdet_dumps(tool, coco, images, tmp_path):
    """mmdet's own DumpDetResults, which ``tools/test.py --out`` adds to the evaluator."""
    torch = pytest.importorskip("torch")
    from mmdet.evaluation import DumpDetResults
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    metric = DumpDetResults(out_file_path=str(tmp_path / "dumped.pkl"))
    for each in images:
        sample = DetDataSample(metainfo=dict(img_id=each.image_id, ori_shape=(200, 200)))
        columns = {"bboxes": each.boxes, "scores": each.scores, "labels": each.labels}
        sample.pred_instances = InstanceData(**{name: torch.tensor(values) for name, values in columns.items()})
        metric.process({}, [sample.to_dict()])
    metric.evaluate(len(images))
    code, printed, _ = tool(tmp_path / "dumped.pkl", "--annotations", coco[0], "--trust-pickle")
    assert code == 0
    assert printed.endswith(tool(coco[1], "--annotations", coco[0])[1])  # after what mmengine logs
