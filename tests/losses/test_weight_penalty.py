"""Penalties on parameters: values by hand, gradients against SGD's weight decay."""

import copy

import pytest
import torch
from torch import nn

from cvplugins.losses import WeightPenalty, weight_penalty


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def test_elastic_net_by_hand():
    first, second = torch.tensor([[1.0, -2.0]]), torch.tensor([3.0])
    assert weight_penalty([first, second], l1=0.5, l2=0.1) == pytest.approx(0.5 * 6 + 0.05 * 14)
    assert weight_penalty([], l1=1.0) == 0
    assert weight_penalty([first]) == 0


def test_gradient():
    values = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: weight_penalty([x], l1=0.3, l2=0.7), values)
    (at_zero,) = torch.autograd.grad(weight_penalty([zero := torch.zeros(2, requires_grad=True)], l1=1.0, l2=1.0), zero)
    assert not at_zero.any()


def test_l2_steps_as_weight_decay_does():
    ours = model()
    theirs = copy.deepcopy(ours)
    images = torch.randn(2, 3, 8, 8)
    penalty = WeightPenalty(l2=0.1, min_dims=0)
    (ours(images).square().mean() + penalty(ours)).backward()
    torch.optim.SGD(ours.parameters(), lr=0.1).step()
    theirs(images).square().mean().backward()
    torch.optim.SGD(theirs.parameters(), lr=0.1, weight_decay=0.1).step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_parameters_are_chosen_by_name_and_dimensions():
    network = model()
    assert [name for name, _ in WeightPenalty(l1=1).chosen(network)] == ["0.weight", "2.weight"]
    assert [name for name, _ in WeightPenalty(l1=1, include="2.*", min_dims=0).chosen(network)] == [
        "2.weight",
        "2.bias",
    ]
    assert [name for name, _ in WeightPenalty(l1=1, exclude=["0.*"]).chosen(network)] == ["2.weight"]
    network[0].requires_grad_(False)
    assert [name for name, _ in WeightPenalty(l1=1).chosen(network)] == ["2.weight"]


def test_half_precision_does_not_overflow():
    value = weight_penalty([torch.full((1000,), 300.0, dtype=torch.float16)], l2=1.0)
    assert value == 0.5 * 1000 * 300**2


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"matches include=\['head.*'\].* first parameters are 0.weight"):
        WeightPenalty(l1=1, include="head*")(model())
    with pytest.raises(ValueError, match="at least 0, not -1"):
        WeightPenalty(l1=-1)
    with pytest.raises(ValueError, match=r"at least 0, not 0\.0 and -2"):
        weight_penalty([torch.ones(1)], l2=-2)
