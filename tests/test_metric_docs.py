"""docs/metrics.md says what is true: calls run, configs build, every logged number is explained."""

import re
from dataclasses import fields

import numpy as np
import pytest
from doc_pages import DOCS, blocks, sections

from cvplugins.metrics import (
    DETECTION_RULES,
    ClassificationMetric,
    GenerationMetric,
    ImageQualityMetric,
    SegmentationMetric,
    TrackedFrame,
    TrackingMetric,
)

openmmlab = pytest.mark.openmmlab
PAGE = (DOCS / "metrics.md").read_text(encoding="utf-8")
SECTIONS = {name: text for name, text in sections(PAGE, 2).items() if name.endswith("Metric")}


def measures(name):
    """The numbers that a section explains; ``*`` stands for a class or a number."""
    table = SECTIONS[name].partition("| in the log | meaning |")[2].partition("\n\n")[0]
    return re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)


@openmmlab
def test_every_metric_has_a_section_and_a_line_in_the_overview():
    from cvplugins.registry import METRICS

    assert set(SECTIONS) == set(METRICS.names())
    assert re.findall(r"^\| \[`(\w+)`\]\(#", PAGE, re.MULTILINE) == list(SECTIONS)


def test_table_of_rules_is_that_of_the_code():
    text = SECTIONS["DetectionMetric"].partition("Rules, each with its options")[2].strip().partition("\n\n")[2]
    table = [line.strip("|").split("|") for line in text.partition("\n\n")[0].splitlines()]
    names = [cell.strip(" `") for cell in table[0][1:]]
    assert names == list(DETECTION_RULES)
    rows = {row[0].strip(" `"): [cell.strip() for cell in row[1:]] for row in table}
    options = [each.name for each in fields(DETECTION_RULES["coco"]) if each.name != "name"]
    for option in options:
        assert rows[option] == [short(getattr(DETECTION_RULES[name], option)) for name in names], option


def short(value):
    if isinstance(value, tuple) and len(value) > 3:
        return f"{value[0]:g} to {value[-1]:g}"
    if isinstance(value, tuple):
        return ", ".join(f"{each:g}" for each in value) or "all"
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("name", SECTIONS)
def test_call_runs(name, capsys):
    (call,) = [block for block in blocks(SECTIONS[name], "python") if block.startswith(("from ", "import "))]
    exec(compile(call, name, "exec"), {})
    printed = capsys.readouterr().out
    assert "print" not in call or float(printed) >= 0


@openmmlab
@pytest.mark.parametrize("name", SECTIONS)
def test_config_builds(name):
    from mmengine.config import Config
    from mmengine.registry import METRICS

    (text,) = [block for block in blocks(SECTIONS[name], "python") if block.startswith("val_evaluator")]
    config = Config.fromstring(text, ".py").val_evaluator
    assert config.type == f"cvplugins.{name}"
    if "weights" in config:
        with pytest.raises(ValueError, match=r"inception_v3\.pth"):  # the file is yours
            METRICS.build(config)
    else:
        METRICS.build(config)


def detections():
    from detection_cases import evaluate, random_images

    return evaluate(random_images(0, 20, scale=2.0), rules=list(DETECTION_RULES)).scalars()


def segmentation():
    metric = SegmentationMetric(["sky", "sea"], boundary=True)
    metric.update("a", np.array([[0, 1], [1, 1]]), np.array([[0, 1], [0, 1]]))
    return metric.compute().scalars()


def classification():
    generator = np.random.default_rng(0)
    scores, found = generator.dirichlet(np.ones(3), 30), {}
    for task, own, labels in (
        ("multiclass", scores, generator.integers(0, 3, 30)),
        ("multilabel", scores, generator.integers(0, 2, (30, 3))),
        ("binary", scores[:, 0], generator.integers(0, 2, 30)),
    ):
        metric = ClassificationMetric(["a", "b", "c"] if task != "binary" else ["no", "yes"], task)
        metric.update(own, labels)
        found |= metric.compute().scalars()
    return found


def image_quality():
    metric = ImageQualityMetric(data_range=255, measures=("MSE", "MAE", "PSNR", "SSIM", "MS-SSIM"))
    image = np.zeros((1, 180, 180), np.uint8)
    metric.update("a", image + 1, image)
    return metric.compute().scalars()


def generation():
    generator = np.random.default_rng(0)
    metric = GenerationMetric(splits=2)
    metric.update(range(20), generator.normal(size=(20, 4)), generator.dirichlet(np.ones(5), 20))
    metric.update(range(20), generator.normal(size=(20, 4)), real=True)
    return metric.compute().scalars()


def tracking():
    metric = TrackingMetric(["car", "bus"])
    for frame in range(4):
        boxes = [[0, 0, 9, 9]]
        metric.update(TrackedFrame("a", frame, [frame // 2], boxes, [7], boxes, [0], [0], seconds=0.1))
    return metric.compute().scalars()


LOGGED = {
    "DetectionMetric": detections,
    "SegmentationMetric": segmentation,
    "ClassificationMetric": classification,
    "ImageQualityMetric": image_quality,
    "GenerationMetric": generation,
    "TrackingMetric": tracking,
}


# A metric whose numbers are those of another one says so, and has no table.
SHARED = {"VOCDetectionMetric", "InstanceSegmentationMetric"}


def test_every_metric_is_asked_for_its_numbers():
    assert set(LOGGED) == set(SECTIONS) - SHARED
    assert {name for name in SECTIONS if not measures(name)} == SHARED


@pytest.mark.parametrize("name", LOGGED)
def test_page_explains_every_logged_number(name):
    patterns = [re.escape(measure).replace(r"\*", ".+") for measure in measures(name)]
    rules = "|".join(DETECTION_RULES)
    suffixed = rf"(?:(?:{rules})_)?(?:{'|'.join(patterns)})(?:_weighted|_micro)?"
    logged = LOGGED[name]()
    assert [number for number in logged if not re.fullmatch(suffixed, number)] == []
    # And nothing is explained that is never logged.
    plain = [re.sub(rf"^(?:{rules})_", "", number) for number in logged]
    found = zip(measures(name), patterns, strict=True)
    unused = [measure for measure, pattern in found if not any(re.fullmatch(pattern, number) for number in plain)]
    assert unused == [] if name != "DetectionMetric" else unused == ["AP/*"]
