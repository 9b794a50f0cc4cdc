"""The average of weights. Oracles: torch's AveragedModel, mmdet's ExpMomentumEMA, and the rule written out."""

import math

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cvplugins.monitors import WeightAverage


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def trained(model, steps, see):
    """Train, and show the model after each step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 3, generator=torch.Generator().manual_seed(step))).square().mean().backward()
        optimizer.step()
        see(step)


def values(average, model):
    with average.applied(model):
        return {name: value.clone() for name, value in model.state_dict().items()}


def test_it_is_the_one_of_torch():
    model = net()
    average, theirs = WeightAverage(model, 0.1), AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))

    def see(step):
        average.update(model, step)
        theirs.update_parameters(model)

    trained(model, 6, see)
    found = values(average, model)
    for name, value in theirs.module.state_dict().items():
        torch.testing.assert_close(found[name], value, msg=name)


@pytest.mark.openmmlab
def test_with_gamma_it_is_the_one_of_mmdet():
    from mmdet.models.layers import ExpMomentumEMA

    model = net()
    average, theirs = WeightAverage(model, 0.01, gamma=10), ExpMomentumEMA(model, momentum=0.01, gamma=10)

    def see(step):
        average.update(model, step)
        theirs.update_parameters(model)

    trained(model, 6, see)
    found = values(average, model)
    for name, value in theirs.module.named_parameters():
        torch.testing.assert_close(found[name], value.detach(), msg=name)


def test_gamma_begin_and_interval():
    """By hand: updates after iterations 1, which copies, 3 and 5."""
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, 0.2, gamma=4, begin=1, interval=2)
    for step in range(6):
        nn.init.constant_(model.weight, float(step))
        average.update(model, step)
    expected = 1.0
    for number, weight in ((1, 3.0), (2, 5.0)):
        expected += (0.2 + 0.8 * math.exp(-(1 + number) / 4)) * (weight - expected)
    assert average.updates == 3
    assert values(average, model)["weight"].item() == pytest.approx(expected)


def test_statistics_are_the_models_or_averaged():
    for update_buffers in (False, True):
        model = net()
        average = WeightAverage(model, 0.5, update_buffers=update_buffers)
        trained(model, 3, lambda step, model=model, average=average: average.update(model, step))
        found = values(average, model)
        assert torch.equal(found["1.running_mean"], model[1].running_mean) != update_buffers
        assert found["1.num_batches_tracked"] == 3


def test_before_the_first_update_the_weights_stay():
    model = net()
    average = WeightAverage(model, begin=10)
    trained(model, 2, lambda step: average.update(model, step))
    assert torch.equal(values(average, model)["0.weight"], model[0].weight)


def test_training_goes_on_with_the_same_parameters_after_an_error():
    model = net()
    average = WeightAverage(model, 0.5)
    trained(model, 2, lambda step: average.update(model, step))
    before, objects = model[0].weight.detach().clone(), list(map(id, model.parameters()))

    def evaluate():
        with average.applied(model):
            assert not torch.equal(model[0].weight, before)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        evaluate()
    assert torch.equal(model[0].weight, before)
    assert list(map(id, model.parameters())) == objects


def test_a_state_of_other_weights_is_refused():
    state = WeightAverage(net()).state_dict()
    with pytest.raises(ValueError, match=r"that of other weights: 8 differ, as 0\.bias"):
        WeightAverage(nn.Linear(1, 1)).load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.0}, "momentum is 1.0; it must be between 0 and 1"),
        ({"gamma": -1}, "gamma is -1; it must be at least 0"),
        ({"begin": -1}, "begin is -1; it must be at least 0"),
        ({"interval": 0}, "interval is 0; it must be at least 1"),
    ],
)
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        WeightAverage(net(), **options)
