"""The table and the figure hold the numbers of the result."""

import sys

import numpy as np
import pytest

from cvplugins.metrics import DetectionMetric, ImageDetections
from cvplugins.reporting import (
    detection_table,
    draw_detection_confusion_figure,
    draw_detection_errors_figure,
    draw_detection_figure,
)


def result(num_classes=3, num_images=10):
    generator = np.random.default_rng(0)
    metric = DetectionMetric([f"class{index}" for index in range(num_classes)])
    for index in range(num_images):
        corner = generator.uniform(0, 50, (5, 2))
        boxes = np.concatenate([corner, corner + generator.uniform(5, 40, (5, 2))], axis=1)
        labels = generator.integers(0, max(num_classes - 1, 1), 5)  # the last class is never labelled
        metric.update(ImageDetections(index, boxes + 1, generator.random(5), labels, boxes, labels))
    return metric.compute()


def test_table_shows_the_numbers_in_per_cent():
    found = result()
    lines = [line.split() for line in detection_table(found).splitlines()]
    numbers = ["AP50", "AP50_11point", "AP", "AP75", "AR100", "precision", "recall", "F1", "best_F1"]
    assert lines[0] == ["class", "objects", "detections", *numbers]
    assert lines[1][:4] == [
        "class0",
        str(found.num_truths[0]),
        str(found.num_detections[0]),
        f"{100 * found.rules['voc2012'].area[0, 0]:.1f}",
    ]
    assert lines[1][-2] == f"{100 * found.operating_points.f1[0]:.1f}"
    assert lines[3] == ["class2", "0", "0", *["-"] * 9]
    assert lines[4][0] == "mean"
    assert lines[4][5] == f"{100 * found.scalars()['AP']:.1f}"
    assert max(map(len, detection_table(found).splitlines())) <= 120
    assert f"{found.scalars()['FPPI']:.2f} false positives an image" in detection_table(found)


@pytest.mark.parametrize(("num_classes", "num_images"), [(1, 0), (3, 10), (80, 100)])
def test_figure_is_a_readable_picture(tmp_path, num_classes, num_images):
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "folder" / "figure.png"
    draw_detection_figure(result(num_classes, num_images), path)
    picture = np.asarray(image.open(path).convert("L"))
    assert picture.shape[1] >= 1000
    assert picture.shape[0] >= 400
    assert (picture < 250).mean() > 0.005
    assert [each.name for each in path.parent.iterdir()] == ["figure.png"]


def test_figure_holds_bars_and_curves_of_the_defined_classes(tmp_path, monkeypatch):
    figures = []
    figure = pytest.importorskip("matplotlib.figure")
    monkeypatch.setattr(
        figure.Figure, "savefig", lambda self, path, **options: (figures.append(self), path.write_bytes(b""))
    )
    found = result()
    draw_detection_figure(found, tmp_path / "figure.png")
    bars, curves = figures[0].axes
    widths = sorted(patch.get_width() for patch in bars.containers[0])
    np.testing.assert_allclose(widths, sorted(100 * found.rules["voc2012"].area[0, :2]))
    assert len(curves.lines) == 2


def test_errors_figure_holds_every_detection_and_object(tmp_path, monkeypatch):
    figures = []
    figure = pytest.importorskip("matplotlib.figure")
    monkeypatch.setattr(
        figure.Figure, "savefig", lambda self, path, **options: (figures.append(self), path.write_bytes(b""))
    )
    found = result()
    draw_detection_errors_figure(found, tmp_path / "figure.png")
    f1, errors = figures[0].axes
    total = sum(patch.get_width() for bars in errors.containers for patch in bars)
    assert total == found.errors.counts.sum() + found.operating_points.true_positives.sum()
    best = [max(line.get_ydata()) for line in f1.lines[:-1]]
    np.testing.assert_allclose(sorted(best), sorted(100 * found.operating_points.best_f1[:2]))


@pytest.mark.parametrize("draw", [draw_detection_errors_figure, draw_detection_confusion_figure])
@pytest.mark.parametrize(("num_classes", "num_images"), [(1, 0), (3, 10), (80, 30)])
def test_other_figures_are_written_as_pixels_and_vectors(tmp_path, draw, num_classes, num_images):
    pytest.importorskip("matplotlib")
    draw(result(num_classes, num_images), tmp_path / "a.png", tmp_path / "a.svg")
    assert (tmp_path / "a.png").stat().st_size > 5_000
    assert "</svg>" in (tmp_path / "a.svg").read_text()


def test_figure_of_a_model_that_finds_nothing(tmp_path):
    metric = DetectionMetric(["cat"])
    metric.update(ImageDetections(0, [[50, 50, 60, 60]], [0.9], [0], [[0, 0, 9, 9]], [0]))
    draw_detection_figure(metric.compute(), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_missing_matplotlib_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        draw_detection_figure(result(), tmp_path / "figure.png")
