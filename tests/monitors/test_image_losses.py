"""The loss on a data set. Oracle: by hand; what is to stay as it was is compared with a copy."""

import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from cvplugins.monitors import mean_losses, to_numbers, undisturbed


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


class Detector(nn.Module):
    """Has losses in training mode alone, and counts in a buffer and in attributes while it computes them."""

    def __init__(self, fails=False):
        super().__init__()
        self.fails, self.normalizer = fails, 100.0
        self.register_buffer("calls", torch.zeros(()))
        self.layers = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))

    def forward(self, image, *, scale):
        if not self.training:
            return None
        self.calls += 1
        self.normalizer *= 0.9
        self.samples = [1, 2]
        if self.fails:
            raise RuntimeError("broken head")
        drawn = random.random() + np.random.rand() + torch.rand(())
        return {"loss_box": self.layers(image).sum() * scale, "drawn": drawn}


def state(model):
    tensors = [value.clone() for value in model.state_dict().values()]
    generators = random.getstate()[1], np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    return [tensor.tolist() for tensor in tensors], generators, vars(model).keys(), model.normalizer


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fails", [False, True])
def test_a_loss_leaves_everything_as_it_was(training, fails):
    model = Detector(fails).train(training)
    modes = [module.training for module in model.modules()]
    device, image, before = torch.device("cpu"), torch.tensor([[0.2, 0.7]]), state(model)
    if fails:
        with pytest.raises(RuntimeError, match="broken head"), undisturbed(model, device) as call:
            call(image, scale=3.0)
    else:
        with undisturbed(model, device) as call:
            losses = call(image, scale=3.0)
        # Without dropout, and with the running statistics.
        expected = 3 * model.layers[0](image).sum() / (1 + 1e-5) ** 0.5
        assert losses["loss_box"].item() == pytest.approx(expected.item(), rel=1e-5)
        assert not losses["loss_box"].requires_grad
    assert state(model) == before
    assert [module.training for module in model.modules()] == modes


def test_what_a_loss_draws_is_the_same_each_time():
    model, device, found = Detector(), torch.device("cpu"), []
    for seed in (7, 8):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        with undisturbed(model, device) as call:
            found.append(to_numbers(call(torch.ones(1, 2), scale=1.0), device))
    assert found[0] == found[1]
    assert list(found[0]) == ["loss_box", "drawn"]
