"""The report of batch norms. Oracle: channels that were made what they should be found as."""

import copy
import math

import pytest
import torch
from torch import nn

from cvplugins.norm import SyncBatchNorm, apply_norm_policy, bn_report


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), SyncBatchNorm(5), nn.Conv2d(5, 2, 1)
    )


def test_ranges():
    model = network()
    model[1].weight.data.copy_(torch.tensor([-0.5, 1, 2, 3]))
    model[1].bias.data.copy_(torch.tensor([0.25, -4, 0, 1]))
    model[1].running_mean.copy_(torch.tensor([7.0, -2, 0, 0]))
    model[1].running_var.copy_(torch.tensor([0.5, 9, 1, 1]))
    first, second = bn_report(model).layers
    assert (first.name, first.channels, second.name, second.channels) == ("1", 4, "4", 5)
    assert first.gamma == (-0.5, 3)
    assert (first.beta, first.running_mean, first.running_var) == ((-4, 1), (-2, 7), (0.5, 9))
    assert (second.gamma, second.beta) == ((1, 1), (0, 0))
    assert bn_report(model).table().splitlines() == [
        "layer  channels  gamma      beta     running mean  running variance  dead  exploding",
        "1      4         -0.5 .. 3  -4 .. 1  -2 .. 7       0.5 .. 9",
        "4      5         1 .. 1     0 .. 0   0 .. 0        1 .. 1",
    ]


def test_channels_that_died_in_training_are_found():
    """Filters of zeros give a constant; the running variance needs 300 iterations to forget where it began."""
    model = network().train()
    with torch.no_grad():
        model[0].weight[2] = 0
        model[4].weight[3] = 1e-5
        model[3].weight[0] = 1e9
    for _ in range(300):
        model(torch.randn(4, 3, 8, 8))
    report = bn_report(model)
    assert report.dead == {"1": (2,), "4": (3,)}
    assert report.exploding == {"4": (0,)}


@pytest.mark.parametrize("value", [math.nan, math.inf, -1e4])
@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_var"])
def test_channels_that_are_not_finite_or_very_large_explode(name, value):
    model = network()
    if name == "running_var":
        value = abs(value) * 1e3
    getattr(model[1], name).data[1] = value
    assert bn_report(model).exploding == {"1": (1,)}


def test_a_healthy_run_has_neither():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=1e-4)
    for _ in range(500):
        input = torch.randn(4, 3, 8, 8)
        optimizer.zero_grad()
        (model(input) - input[:, :2, :4, :4]).square().mean().backward()
        optimizer.step()
    report = bn_report(model)
    assert (report.dead, report.exploding) == ({}, {})


def test_limits():
    model = network()
    assert bn_report(model, dead_below=2).dead == {"1": (0, 1, 2, 3), "4": (0, 1, 2, 3, 4)}
    assert bn_report(model, exploding_above=0.5).exploding == {"1": (0, 1, 2, 3), "4": (0, 1, 2, 3, 4)}
    with pytest.raises(ValueError, match="dead_below is -1; it must be at least 0"):
        bn_report(model, dead_below=-1)
    with pytest.raises(ValueError, match="exploding_above is nan"):
        bn_report(model, exploding_above=math.nan)


def test_kinds_of_layers():
    model = nn.Sequential(
        nn.BatchNorm2d(2, affine=False),
        nn.BatchNorm2d(2, track_running_stats=False),
        nn.BatchNorm2d(2).half(),
        nn.GroupNorm(1, 2),
        nn.BatchNorm2d(2),
    )
    apply_norm_policy(model, [{"to": "FrozenBN", "names": ["4"]}])
    before = copy.deepcopy(model.state_dict())
    assert [layer.name for layer in bn_report(model).layers] == ["0", "2", "4"]
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
