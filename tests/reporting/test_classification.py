"""The table and the figures of a classification hold the numbers of the result."""

import sys

import numpy as np
import pytest

from cvplugins.metrics import ClassificationMetric
from cvplugins.reporting import (
    classification_table,
    draw_classification_figure,
    draw_confusion_figure,
    draw_rates_figure,
)

TASKS = ["multiclass", "multilabel", "binary"]


def result(task="multiclass", num_classes=4, count=200, **options):
    """The last class is never labelled, unless there are but two."""
    generator = np.random.default_rng(0)
    names = ["no", "yes"] if task == "binary" else [f"class{index}" for index in range(num_classes)]
    metric = ClassificationMetric(names, task, **options)
    if task == "multiclass":
        labels = generator.integers(0, num_classes - 1, count)
        scores = generator.dirichlet(np.ones(num_classes), count) + np.eye(num_classes)[labels]
        metric.update(scores / 2, labels)
    else:
        shape = count if task == "binary" else (count, num_classes)
        labels = generator.integers(0, 2, shape)
        metric.update((3 * generator.random(shape) + labels) / 4, labels)
    return metric.compute()


def test_table_shows_the_numbers_in_per_cent():
    found = result()
    lines = [line.split() for line in classification_table(found).splitlines()]
    columns = {**found.rates, **found.areas}
    assert lines[0] == ["class", "samples", "precision", "recall", "specificity", "F1", "AUC", "AP", "PR_AUC"]
    expected = [f"{100 * rate.per_class[1]:.1f}" for rate in columns.values()]
    assert lines[2] == ["class1", str(found.support[1]), *expected]
    assert lines[4][:2] == ["class3", "0"]
    assert lines[4][-3:] == ["-", "-", "-"]
    for line, average in zip(lines[5:], ("macro", "weighted", "micro"), strict=True):
        assert line[0] == {"macro": "mean"}.get(average, average)
        assert line[2:] == [f"{100 * getattr(rate, average):.1f}" for rate in columns.values()]


def test_table_fits_into_a_line_of_a_log_and_shows_the_worst_of_many_classes():
    found = result(num_classes=70, count=2000)
    lines = classification_table(found).splitlines()
    assert lines[0] == "the 50 of 70 classes with the lowest F1"
    assert len(lines) == 2 + 50 + 3
    metric = ClassificationMetric(["cat", "a dog with a very long name " * 9])
    metric.update([[0.5, 0.5]], [1])
    assert max(map(len, classification_table(metric.compute()).splitlines())) == 120


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("count", [0, 200])
@pytest.mark.parametrize("curves", [True, False])
def test_figures_are_readable_pictures(tmp_path, task, count, curves):
    image = pytest.importorskip("PIL.Image")
    found = result(task, count=count, curves=curves)
    draws = [draw_classification_figure, draw_rates_figure]
    draws += [draw_confusion_figure] if task != "multilabel" else []
    for draw in draws:
        path = tmp_path / "folder" / f"{draw.__name__}.png"
        draw(found, path)
        picture = np.asarray(image.open(path).convert("L"))
        assert min(picture.shape) >= 250
        assert (picture < 250).mean() > 0.005
    assert len(list(path.parent.iterdir())) == len(draws)


def test_figure_holds_curves_of_the_defined_classes(tmp_path, monkeypatch):
    figures = []
    figure = pytest.importorskip("matplotlib.figure")
    monkeypatch.setattr(
        figure.Figure, "savefig", lambda self, path, **options: (figures.append(self), path.write_bytes(b""))
    )
    found = result()
    draw_classification_figure(found, tmp_path / "figure.png")
    roc, precision_recall = figures[0].axes[:2]
    assert len(roc.lines) == 3 + 1  # and the diagonal
    assert len(precision_recall.lines) == 3
    best = found.roc_auc[:3].argmax()
    labels = [line.get_label() for line in roc.lines]
    assert f"class{best} {100 * found.roc_auc[best]:.1f}" in labels


def test_confusion_of_several_labels_is_refused(tmp_path):
    with pytest.raises(ValueError, match="see draw_rates_figure"):
        draw_confusion_figure(result("multilabel"), tmp_path / "figure.png")


def test_missing_matplotlib_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        draw_classification_figure(result(), tmp_path / "figure.png")
