"""The tables and the figure hold the numbers of the results."""

import math
import sys

import numpy as np
import pytest

from cvplugins.metrics import GenerationMetric, ImageQualityMetric
from cvplugins.reporting import draw_image_quality_figure, generation_table, image_quality_table


def result(count=12, equal=0, **options):
    generator = np.random.default_rng(0)
    metric = ImageQualityMetric(255, layout="HW", **options)
    for index in range(count):
        target = np.kron(generator.integers(0, 256, (6, 7)), np.ones((6, 6)))
        noise = 0 if index < equal else generator.normal(0, 2 + 3 * index, target.shape)
        metric.update(f"some/rather/long/folder/of/images/number_{index:05}.png", target + noise, target)
    return metric.compute()


def test_table_shows_means_and_the_worst_images():
    found = result()
    lines = [line.split() for line in image_quality_table(found, worst=3).splitlines()]
    assert lines[0][-1] == "12"
    assert lines[1] == list(found.measures)
    assert lines[2] == ["mean", *(f"{value:.4f}" for value in found.scalars().values())]
    assert lines[3][1:] == [f"{value:.4f}" for value in np.median(found.values, axis=0)]
    assert lines[4][3] == f"{found.column('PSNR').min():.4f}"
    assert lines[5][3] == f"{found.column('PSNR').max():.4f}"
    assert lines[6] == ["worst", "by", "SSIM:"]
    order = np.argsort(found.column("SSIM"))[:3]
    assert [line[0][-9:] for line in lines[7:]] == [found.image_ids[index][-9:] for index in order]
    assert [line[4] for line in lines[7:]] == [f"{found.column('SSIM')[index]:.4f}" for index in order]


def test_table_of_equal_images_and_of_none():
    assert "inf" in image_quality_table(result(equal=2))
    assert "inf" not in image_quality_table(result(equal=2, psnr_of_equal=math.nan))
    assert image_quality_table(result(0)).split() == ["number", "of", "images", "0"]
    lines = image_quality_table(result(2, equal=2, measures=["PSNR"], psnr_of_equal=math.nan)).splitlines()
    assert lines[2].split() == ["mean", "-"]


@pytest.mark.parametrize(
    ("count", "equal", "options"),
    [
        (200, 0, {}),
        (12, 2, {}),
        (1, 0, {}),
        (2, 2, {}),
        (0, 0, {}),
        (9, 0, {"measures": ["MSE"]}),
        (9, 3, {"measures": ["SSIM", "PSNR"], "psnr_of_equal": math.nan}),
    ],
)
def test_figure_is_a_readable_picture(tmp_path, count, equal, options):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    found = result(count, equal, **options)
    paths = tmp_path / "new" / "figure.png", tmp_path / "figure.svg"
    draw_image_quality_figure(found, *paths)
    with image.open(paths[0]) as picture:
        width, height = picture.size
        assert width > 400
        assert height > 400
        assert len(picture.convert("RGB").getcolors(maxcolors=2**24)) > 10
    assert "<svg" in paths[1].read_text()


def test_figure_needs_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        draw_image_quality_figure(result(1), tmp_path / "figure.png")


def test_table_of_generated_images():
    metric = GenerationMetric(splits=2)
    metric.update("abcd", [[0.0], [2.0], [0.0], [2.0]], [[1.0, 0.0], [0.0, 1.0]] * 2)
    undefined = generation_table(metric.compute())
    metric.update("ab", [[3.0], [5.0]], real=True)
    lines = [line.split() for line in generation_table(metric.compute()).splitlines()]
    assert [line[-1] for line in lines[:2]] == ["4", "2"]
    distance = metric.compute().frechet
    assert [line[-1] for line in lines[2:5]] == [
        f"{x:.4f}" for x in (distance.total, distance.mean, distance.covariance)
    ]
    assert lines[5] == ["IS", "of", "2", "splits", "2.0000"]
    assert lines[6] == ["deviation", "0.0000"]
    assert [line.split()[-1] for line in undefined.splitlines()[1:5]] == ["-"] * 4
