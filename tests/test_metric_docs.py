"""docs/metrics.md says what is true: up to date, calls run, configs build, every logged number is explained."""

import re
import sys

import numpy as np
import pytest
from metric_entries import ENTRIES, NUMBERS_OF

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


@openmmlab
def test_page_is_up_to_date(root):
    import make_metrics

    assert (root / "docs" / "metrics.md").read_text() == make_metrics.page(), "run python docs/make_metrics.py"


@openmmlab
def test_check_finds_an_old_page(tmp_path, monkeypatch):
    import make_metrics

    monkeypatch.setattr(make_metrics, "PAGE", tmp_path / "metrics.md")
    for option, code in (("--check", 1), ("", 0), ("--check", 0)):
        monkeypatch.setattr(sys, "argv", ["make_metrics.py", *([option] if option else [])])
        assert make_metrics.main() == code


@openmmlab
def test_missing_entries_are_named(monkeypatch):
    import make_metrics

    monkeypatch.setattr(make_metrics, "ENTRIES", {k: v for k, v in ENTRIES.items() if k != "SegmentationMetric"})
    with pytest.raises(ValueError, match="SegmentationMetric lacks an entry"):
        make_metrics.page()


def test_every_rule_names_its_number():
    assert set(NUMBERS_OF) == set(DETECTION_RULES)


@pytest.mark.parametrize("name", ENTRIES)
def test_call_runs(name, capsys):
    exec(compile(ENTRIES[name].call, name, "exec"), {})
    printed = capsys.readouterr().out
    assert "print" not in ENTRIES[name].call or float(printed) >= 0


@openmmlab
@pytest.mark.parametrize("name", ENTRIES)
def test_config_builds(name):
    from mmengine.config import Config
    from mmengine.registry import METRICS

    config = Config.fromstring(ENTRIES[name].config, ".py").val_evaluator
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


def test_every_metric_is_asked_for_its_numbers():
    assert set(LOGGED) == {name for name, entry in ENTRIES.items() if not entry.measures_of}


@pytest.mark.parametrize("name", LOGGED)
def test_page_explains_every_logged_number(name):
    measures = ENTRIES[name].measures
    patterns = [re.escape(measure).replace(r"\*", ".+") for measure in measures]
    rules = "|".join(DETECTION_RULES)
    suffixed = rf"(?:(?:{rules})_)?(?:{'|'.join(patterns)})(?:_weighted|_micro)?"
    logged = LOGGED[name]()
    assert [number for number in logged if not re.fullmatch(suffixed, number)] == []
    # And nothing is explained that is never logged.
    plain = [re.sub(rf"^(?:{rules})_", "", number) for number in logged]
    unused = [
        m for m, pattern in zip(measures, patterns, strict=True) if not any(re.fullmatch(pattern, n) for n in plain)
    ]
    assert unused == [] if name != "DetectionMetric" else unused == ["AP/*"]


@pytest.mark.parametrize("name", ENTRIES)
def test_links_lead_on(root, name):
    assert f"## {name}\n" in (root / "docs" / "metrics.md").read_text()
