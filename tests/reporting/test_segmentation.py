"""The table and the figure of a segmentation hold the numbers of the result."""

import sys

import numpy as np
import pytest

from cvplugins.metrics import SegmentationMetric
from cvplugins.reporting import draw_segmentation_figure, segmentation_table


def result(num_classes=4, num_images=3, **options):
    """The last class is never labelled or predicted."""
    generator = np.random.default_rng(0)
    metric = SegmentationMetric([f"class{index}" for index in range(num_classes)], **options)
    for index in range(num_images):
        coarse = generator.integers(0, max(num_classes - 1, 1), (5, 6))
        label = np.kron(coarse, np.ones((8, 8), int))
        metric.update(index, label, np.roll(label, (1, 2), (0, 1)))
    return metric.compute()


def test_table_shows_the_numbers_in_per_cent():
    found = result()
    lines = [line.split() for line in segmentation_table(found).splitlines()]
    assert lines[0] == ["class", "pixels", "IoU", "Acc", "Dice", "Fscore", "Precision"]
    per_class = [found.iou, found.recall, found.dice, found.f_score, found.precision]
    pixels = str(found.confusion.sum(axis=1)[1])
    assert lines[2] == ["class1", pixels, *(f"{100 * values[1]:.2f}" for values in per_class)]
    assert "class3" not in {line[0] for line in lines}
    assert " ".join(lines[4]) == "neither labelled nor predicted: 1 of 4 classes"
    assert lines[5][:3] == ["mean", str(found.confusion.sum()), f"{100 * found.scalars()['mIoU']:.2f}"]
    assert lines[6][:3] == ["pixel", "accuracy", f"{100 * found.pixel_accuracy:.2f},"]


@pytest.mark.parametrize("boundary", [False, True])
def test_table_fits_into_a_line_of_a_log(boundary):
    metric = SegmentationMetric(["sky", "swimming pool " * 10], boundary=boundary)
    metric.update(0, np.array([[0, 1]]), np.array([[0, 1]]))
    lines = segmentation_table(metric.compute()).splitlines()
    assert max(map(len, lines)) == 120
    assert lines[2].startswith("swimming pool")
    assert ("B-F1" in lines[0]) == boundary


def test_table_of_nothing():
    assert segmentation_table(SegmentationMetric(["a"]).compute()).splitlines()[-1] == "no pixel is labelled"


@pytest.mark.parametrize(("num_classes", "num_images", "boundary"), [(1, 0, False), (4, 3, True), (150, 20, False)])
def test_figure_is_a_readable_picture(tmp_path, num_classes, num_images, boundary):
    image = pytest.importorskip("PIL.Image")
    paths = tmp_path / "folder" / "figure.png", tmp_path / "folder" / "figure.svg"
    draw_segmentation_figure(result(num_classes, num_images, boundary=boundary), *paths)
    picture = np.asarray(image.open(paths[0]).convert("L"))
    assert picture.shape[1] >= 1000
    assert (picture < 250).mean() > 0.005
    assert b"<svg" in paths[1].read_bytes()[:1000]
    assert sorted(each.name for each in paths[0].parent.iterdir()) == ["figure.png", "figure.svg"]


def test_figure_holds_a_bar_for_each_defined_class(tmp_path, monkeypatch):
    figures = []
    figure = pytest.importorskip("matplotlib.figure")
    monkeypatch.setattr(
        figure.Figure, "savefig", lambda self, path, **options: (figures.append(self), path.write_bytes(b""))
    )
    found = result(boundary=True)
    draw_segmentation_figure(found, tmp_path / "figure.png")
    bars = figures[0].axes[0]
    for container, values in zip(bars.containers, (found.iou, found.boundary_iou), strict=True):
        order = np.argsort(found.iou[:3])
        np.testing.assert_allclose([patch.get_width() for patch in container], 100 * values[order])


def test_missing_matplotlib_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        draw_segmentation_figure(result(), tmp_path / "figure.png")
