"""Names of numbers: which can come, what was probably meant, and that the metrics know all of theirs."""

import numpy as np
import pytest

from cvplugins import metrics
from cvplugins.errors import UserError
from cvplugins.monitors import MetricNames, value_of

KNOWN = MetricNames(("bbox/AP50", "bbox/AP50_11point", "bbox/precision", "bbox/AP50/cat"), ("val/",))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("bbox/AP5O", "did you mean 'bbox/AP50'"),
        ("bbox/ap50", "did you mean 'bbox/AP50'"),
        ("AP50", "did you mean 'bbox/AP50'"),
        ("detection/precision", "did you mean 'bbox/precision'"),
        ("bbox/AP50/cats", "did you mean 'bbox/AP50/cat'"),
        ("bbox/loss", "ValidationLoss adds losses"),
        ("nonsense", "There are bbox/AP50, bbox/AP50_11point, bbox/precision"),
    ],
)
def test_a_name_that_never_comes(name, meant):
    with pytest.raises(UserError) as caught:
        KNOWN.check(name, "Hook: monitor")
    message = str(caught.value)
    assert message.startswith(f"Hook: monitor is {name!r}, which no validation of this config gives; ")
    assert meant.replace("'", "") in message.replace("'", "")
    assert "bbox/AP50/cat," not in message.partition("There are")[2]


def test_names_that_may_come():
    for name in (*KNOWN.names, "val/loss", "val/loss_cls"):
        KNOWN.check(name, "Hook: monitor")
    MetricNames((), ("",)).check("anything", "Hook: monitor")


def test_undefined_is_no_value_and_unknown_is_an_error():
    assert value_of({"a": 1}, "a", "early stopping", may_come=False) == 1.0
    assert value_of({"a": 1}, "b", "early stopping", may_come=True) is None
    assert value_of({"b": None}, "b", "early stopping", may_come=True) is None
    with pytest.raises(UserError, match=r"^early stopping: there is no 'b' among the metrics .*; use one of a$"):
        value_of({"a": 1}, "b", "early stopping", may_come=False)


def detections(seed):
    generator = np.random.default_rng(seed)
    corners = generator.uniform(0, 80, (6, 2))
    boxes = np.hstack([corners, corners + generator.uniform(5, 150, (6, 2))])
    labels = np.arange(6) % 2
    return metrics.ImageDetections(seed, boxes + 1, generator.uniform(size=6), labels, boxes, labels)


def filled(metric):
    """A metric that has seen enough for its numbers to be defined."""
    generator = np.random.default_rng(1)
    if isinstance(metric, metrics.DetectionMetric):
        for seed in range(4):
            metric.update(detections(seed))
    elif isinstance(metric, metrics.SegmentationMetric):
        label = generator.integers(0, 2, (16, 16))
        metric.update("a", label, generator.integers(0, 2, (16, 16)))
    elif isinstance(metric, metrics.ClassificationMetric):
        metric.update(generator.dirichlet([1, 1], 8), np.arange(8) % 2)
    else:
        metric.update("a", generator.uniform(0, 255, (3, 16, 16)), generator.uniform(0, 255, (3, 16, 16)))
    return metric


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("DetectionMetric", {"classes": ["cat", "dog"], "rules": ["voc2007", "coco"]}),
        ("DetectionMetric", {"classes": ["cat", "dog"], "rules": [{"base": "coco", "iou_thresholds": (0.3,)}]}),
        ("SegmentationMetric", {"classes": ["cat", "dog"], "boundary": True}),
        ("ClassificationMetric", {"classes": ["cat", "dog"]}),
        ("ImageQualityMetric", {"data_range": 255}),
    ],
)
def test_a_metric_of_nothing_knows_every_name(kind, options):
    """Oracle: the names of the numbers of a metric that has seen images."""
    make = getattr(metrics, kind)
    empty, seen = make(**options).compute(), filled(make(**options)).compute()
    assert list(empty.numbers()) == list(seen.numbers())
    assert set(seen.scalars()) <= set(empty.numbers())
    assert len(seen.scalars()) > len(empty.scalars())
