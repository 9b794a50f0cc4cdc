"""The table of reports: every type of result has one, and its files are named alike."""

import json

import numpy as np
import pytest

from cvplugins import metrics
from cvplugins.metrics import ClassificationMetric
from cvplugins.reporting import REPORTS, result_table, write_results


def test_every_result_of_a_metric_has_a_report():
    """What a metric's ``compute`` returns; a rule's result is a part of a detection's."""
    of_metrics = {name for name in metrics.__all__ if name.endswith("Result")} - {"RuleResult"}
    assert {each.__name__ for each in REPORTS} == of_metrics


@pytest.mark.parametrize(
    ("task", "kinds"),
    [
        ("multiclass", {"figure", "confusion", "rates"}),
        ("multilabel", {"figure", "rates"}),
        ("binary", {"figure", "confusion"}),
    ],
)
def test_files_fit_the_task(tmp_path, task, kinds):
    generator = np.random.default_rng(0)
    scores = generator.random(40) if task == "binary" else generator.dirichlet([1, 1, 1], 40)
    labels = generator.integers(0, 2, (40, 3) if task == "multilabel" else 40)
    metric = ClassificationMetric(["a", "b", "c"] if task != "binary" else ["no", "yes"], task=task)
    metric.update(scores, labels)
    result = metric.compute()
    written = write_results(result, tmp_path, "own", {"option": 1})
    assert written.keys() == {"results", *kinds}
    content = json.loads(written["results"].read_text())
    assert (content["mean"], content["settings"]) == (result.scalars(), {"option": 1})
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"own_results.json", *(f"own_{kind}{suffix}" for kind in kinds for suffix in (".png", ".svg"))}


def test_a_result_without_a_report_is_named():
    with pytest.raises(TypeError, match="no report for dict; there are DetectionResult, "):
        result_table({})
