"""The loss on a data set. Oracle: by hand."""

import math

import pytest

from cvplugins.monitors import mean_losses


def test_a_loss_that_an_image_lacks_counts_as_0_and_a_score_not_at_all():
    images = [("a", {"loss": 3.0, "loss_box": 1.0, "acc": 0.5}), ("b", {"loss": 1.0}), ("c", {"loss": 2.0, "acc": 1.0})]
    assert mean_losses(images).losses == pytest.approx({"loss": 2.0, "loss_box": 1 / 3, "acc": 0.75})


def test_the_order_of_the_images_does_not_matter():
    images = [(str(index), {"loss": 0.1 * index}) for index in range(100)]
    assert mean_losses(images).losses == mean_losses(images[::-1]).losses


def test_what_is_not_finite_is_named_and_nan():
    images = [(f"{index}.jpg", {"loss": math.inf, "loss_box": 1.0}) for index in range(6)]
    result = mean_losses([*images, ("ok.jpg", {"loss": 1.0, "loss_box": 1.0})])
    assert math.isnan(result.losses["loss"])
    assert result.losses["loss_box"] == 1.0
    assert list(result.warnings()) == [
        "validation loss: loss is not finite in 6 images: 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg ...",
    ]


def test_no_images():
    assert math.isnan(mean_losses([]).losses["loss"])
