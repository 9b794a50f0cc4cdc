"""Each rule against the evaluator that it is named after."""

import dataclasses

import numpy as np
import pytest
from detection_cases import CLASSES, evaluate, random_images

from cvplugins.metrics import DETECTION_RULES, DetectionMetric, DetectionRule, ImageDetections, detection_rule

BOX = [10.0, 10.0, 29.0, 29.0]


def with_distinct_scores(images):
    """Detectron2 sorts rounded scores unstably; so let them differ by thousandths."""
    generator = np.random.default_rng(0)
    count = sum(len(each.scores) for each in images)
    scores = np.split(generator.permutation(count) / 1000 + 0.0002, np.cumsum([len(each.scores) for each in images]))
    assert count < 1000
    return [
        dataclasses.replace(each, scores=score.astype(np.float32))
        for each, score in zip(images, scores[:-1], strict=True)
    ]


@pytest.mark.detectron2
@pytest.mark.parametrize(("year", "rule"), [(2007, "detectron2"), (2012, "detectron2_2012")])
@pytest.mark.parametrize("seed", range(3))
def test_detectron2_rule_equals_its_evaluator(tmp_path, year, rule, seed):
    pytest.importorskip("detectron2", reason="detectron2 is not installed")
    images = with_distinct_scores(random_images(seed, count=40, whole_pixels=False))
    # Annotations are whole pixels; Detectron2 reads them with xmin - 1 and ymin - 1.
    images = [dataclasses.replace(each, truth_boxes=each.truth_boxes.round(), corners="edges") for each in images]
    expected = detectron2_evaluation(images, tmp_path, year)
    result = evaluate([without_label(each, 3) for each in images], CLASSES[:3], rules=[rule])
    found = {name: 100 * result.scalars()[name] for name in ("AP", "AP50", "AP75")}
    assert found == pytest.approx(expected, abs=1e-12)


def without_label(image, label):
    """Detectron2 divides by 0 for a class without ground truth."""
    keep = image.labels != label
    return dataclasses.replace(image, boxes=image.boxes[keep], scores=image.scores[keep], labels=image.labels[keep])


def detectron2_evaluation(images, folder, year):
    import torch
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import PascalVOCDetectionEvaluator
    from detectron2.structures import Boxes, Instances

    name = f"voc_test_{folder.name}"
    (folder / "Annotations").mkdir(exist_ok=True)
    (folder / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
    (folder / "ImageSets/Main/test.txt").write_text("\n".join(str(each.image_id) for each in images))
    for each in images:
        objects = "".join(
            f"<object><name>{CLASSES[label]}</name><pose/><truncated>0</truncated><difficult>{int(hard)}</difficult>"
            f"<bndbox><xmin>{int(box[0]) + 1}</xmin><ymin>{int(box[1]) + 1}</ymin><xmax>{int(box[2])}</xmax>"
            f"<ymax>{int(box[3])}</ymax></bndbox></object>"
            for box, label, hard in zip(each.truth_boxes, each.truth_labels, each.difficult, strict=True)
        )
        objects = objects.replace("<pose/>", "<pose>Left</pose>")
        (folder / f"Annotations/{each.image_id}.xml").write_text(f"<annotation>{objects}</annotation>")
    MetadataCatalog.get(name).set(dirname=str(folder), split="test", year=year, thing_classes=list(CLASSES[:3]))
    evaluator = PascalVOCDetectionEvaluator(name)
    evaluator.reset()
    for each in images:
        keep = each.labels < 3
        instances = Instances((200, 200))
        instances.pred_boxes = Boxes(torch.tensor(each.boxes[keep]))
        instances.scores = torch.tensor(each.scores[keep])
        instances.pred_classes = torch.tensor(each.labels[keep])
        evaluator.process([{"image_id": each.image_id}], [{"instances": instances}])
    return dict(evaluator.evaluate()["bbox"])


@pytest.mark.parametrize(("comparison", "found"), [(">=", 1.0), (">", 0.0)])
def test_an_overlap_equal_to_the_threshold(comparison, found):
    half = ImageDetections(1, [[0, 0, 10, 10]], [0.9], [0], [[0, 0, 10, 5]], [0])
    rule = DetectionRule("own", iou_thresholds=(0.5,), iou_comparison=comparison)
    assert evaluate([half], ["cat"], rules=[rule]).scalars()["AP50"] == found


def test_every_rule_gives_all_three_averages():
    images = random_images(3, count=30)
    result = evaluate(images, rules=list(DETECTION_RULES))
    np.testing.assert_array_equal(result.rules["voc2007"].area, result.rules["voc2012"].area)
    np.testing.assert_array_equal(result.rules["voc2007"].average_precision, result.rules["voc2012"].eleven_point)
    found = result.scalars()
    assert found["AP50"] == found["AP50_11point"]
    assert found["AP50_area"] == found["voc2012_AP50"]
    assert {"AP", "AP75", "coco_AP50", "AR100", "detectron2_AP", "detectron2_2012_AP75"} <= set(found)


def test_only_the_best_of_max_detections_count():
    far = [[50.0, 50.0, 60.0, 60.0]]
    crowded = ImageDetections(1, far * 3 + [BOX], [0.9, 0.8, 0.7, 0.6], [0] * 4, [BOX], [0])
    rules = [DetectionRule("three", max_detections=(1, 3)), DetectionRule("four", max_detections=(4,))]
    result = evaluate([crowded], ["cat"], rules=rules)
    assert result.rules["three"].coco.max() == 0
    assert result.rules["four"].coco[0, 0] == pytest.approx(1 / 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(assignment="hungarian"), "rule own: assignment is 'hungarian'; accepted: .*overlaps_most"),
        (dict(average="auc"), "average is 'auc'"),
        (dict(iou_comparison="=="), "iou_comparison is '=='"),
        (dict(precision="float16"), "precision is 'float16'"),
        (dict(iou_thresholds=()), r"iou_thresholds are \(\)"),
        (dict(iou_thresholds=(0.7, 0.5)), "must rise"),
        (dict(iou_thresholds=(0.0, 0.5)), "must rise within"),
        (dict(max_detections=(10, 1)), "max_detections are"),
    ],
)
def test_wrong_rules_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        DetectionRule("own", **options)


def test_unknown_and_equal_names():
    with pytest.raises(ValueError, match="no detection rule is called 'voc'; there are voc2007, voc2012, coco"):
        detection_rule("voc")
    with pytest.raises(ValueError, match="different names"):
        DetectionMetric(["cat"], rules=["coco", "coco"])
    with pytest.raises(ValueError, match="different names"):
        DetectionMetric(["cat"], rules=[])
    assert DetectionMetric(["cat"], rules="coco").rules == (DETECTION_RULES["coco"],)


def test_size_ranges_count_the_last_pixel_as_the_rule_does():
    """33 x 33 pixels by PASCAL VOC's count, in either framework's coordinates; 32 x 32, which is small, by COCO's."""
    box = [[10.0, 10.0, 42.0, 42.0]]
    for rule, corners, boxes, small in (
        ("voc2012", "pixels", box, False),
        ("voc2012", "edges", [[10.0, 10.0, 43.0, 43.0]], False),
        ("coco", "pixels", box, True),
    ):
        image = ImageDetections("a", boxes, [0.9], [0], boxes, [0], corners=corners)
        found = evaluate([image], ["cat"], rules=[rule]).first_rule
        assert np.isfinite(found.per_class()["AR_small"]).item() == small
        assert found.per_class()["AR_medium"] == 1


@pytest.mark.parametrize("rule", ["voc2007", "voc2012", "detectron2", "detectron2_2012"])
def test_the_same_boxes_with_either_kind_of_corners(rule):
    """The same pixels, once as mmdet reads them from a file and once as Detectron2 does."""
    pixels = random_images(4, count=30, whole_pixels=True)
    edge = np.array([0, 0, 1, 1], np.float32)
    edges = [
        dataclasses.replace(each, boxes=each.boxes + edge, truth_boxes=each.truth_boxes + edge, corners="edges")
        for each in pixels
    ]
    of_pixels, of_edges = (evaluate(images, rules=[rule]).as_dict() for images in (pixels, edges))
    assert of_pixels["settings"].pop("corners") == "pixels"
    assert of_edges["settings"].pop("corners") == "edges"
    assert of_pixels["mean"]["AP50"] > 0.1
    assert of_pixels == of_edges


def test_corners_that_are_unknown_or_mixed():
    image = ImageDetections("a", [], [], [], [], [])
    with pytest.raises(ValueError, match="image a: corners is 'centres'; accepted: "):
        dataclasses.replace(image, corners="centres")
    with pytest.raises(ValueError, match="image b: the corners of its boxes are edges, those of the others pixels"):
        evaluate([image, dataclasses.replace(image, image_id="b", corners="edges")])
