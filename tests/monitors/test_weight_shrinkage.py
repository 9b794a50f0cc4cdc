"""Penalties at the step. Oracles: torch's weight_decay, and a loop over single weights in float64."""

import math

import pytest
import torch
from torch import nn

from cvplugins.losses import weight_penalty
from cvplugins.monitors import WeightShrinkage


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LayerNorm([16]), nn.Linear(16, 3))


def steps(model, optimizer, before=None, after=None, count=20):
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        optimizer.zero_grad()
        model(torch.randn(8, 2, 4, 4, generator=generator)).square().mean().backward()
        if before:
            before(optimizer)
        optimizer.step()
        if after:
            after(optimizer)
    return model


def test_l2_as_gradient_is_the_weight_decay_of_sgd():
    """To the last bit, with momentum, on weights alone."""
    expected = network()
    groups = [dict(params=[p for p in expected.parameters() if p.ndim > 1], weight_decay=0.1)]
    groups.append(dict(params=[p for p in expected.parameters() if p.ndim < 2]))
    steps(expected, torch.optim.SGD(groups, lr=0.1, momentum=0.9))
    model = network()
    shrinkage = WeightShrinkage(model, l2=0.1)
    steps(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), before=shrinkage.add_gradient)
    for name, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_gradient_is_that_of_the_penalty_in_the_loss():
    model = network()
    shrinkage = WeightShrinkage(model, l1=0.3, l2=0.7)
    chosen = list(shrinkage.parameters.values())
    expected = torch.autograd.grad(weight_penalty(chosen, l1=0.3, l2=0.7), chosen)
    for scale in (1.0, torch.tensor(64.0)):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        shrinkage.add_gradient(torch.optim.SGD(model.parameters(), lr=0.1), scale=scale)
        for parameter, gradient in zip(chosen, expected, strict=True):
            torch.testing.assert_close(parameter.grad / scale, gradient)
        others = [parameter for parameter in model.parameters() if id(parameter) not in {id(each) for each in chosen}]
        assert all(not parameter.grad.any() for parameter in others)


def soft(value, l1, l2, lr):
    """Loop over single weights: the minimum of (u - w)^2 / 2 + lr * (l1 * |u| + l2 / 2 * u^2)."""
    shrunk = max(abs(value) - lr * l1, 0.0)
    return math.copysign(shrunk, value) / (1 + lr * l2)


@pytest.mark.parametrize(("l1", "l2"), [(2.0, 0.0), (0.0, 3.0), (2.0, 3.0)])
def test_proximal_step_is_the_soft_threshold(l1, l2):
    model = network().double()
    groups = [dict(params=model[0].parameters(), lr=0.1), dict(params=model[4].parameters(), lr=0.01)]
    before = {name: value.clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    WeightShrinkage(model, l1=l1, l2=l2).shrink(torch.optim.SGD(groups, lr=1.0))
    for name, lr in (("0.weight", 0.1), ("4.weight", 0.01)):
        expected = [soft(value, l1, l2, lr) for value in before[name].flatten().tolist()]
        found = model.get_parameter(name).flatten()
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)
    assert torch.equal(model[0].bias, before["0.bias"])
    assert torch.equal(model[3].weight, before["3.weight"])


def test_only_the_proximal_step_gives_zeros():
    """Lasso with an orthogonal design: the solution is the soft threshold of the least-squares one."""
    torch.manual_seed(0)
    target = torch.tensor([3.0, -2.0, 0.3, -0.1, 0.0, 1.0])
    found = {}
    for form in ("add_gradient", "shrink"):
        model = nn.Linear(6, 1, bias=False)
        shrinkage = WeightShrinkage(model, l1=0.5)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(300):
            optimizer.zero_grad()
            (0.5 * (model.weight[0] - target).square().sum()).backward()
            if form == "add_gradient":
                shrinkage.add_gradient(optimizer)
            optimizer.step()
            if form == "shrink":
                shrinkage.shrink(optimizer)
        found[form] = model.weight.detach()[0], shrinkage.report()
    expected = torch.tensor([soft(value, 0.5, 0, 1) for value in target.tolist()])
    torch.testing.assert_close(found["shrink"][0], expected, atol=1e-6, rtol=0)
    assert found["shrink"][1].sparsity == 0.5
    assert found["shrink"][1].penalty == pytest.approx(0.5 * expected.abs().sum().item())
    assert found["shrink"][1].layers == {"weight": 0.5}
    assert found["add_gradient"][1].sparsity == 0.0


def test_nan_stays_nan_and_idle_parameters_stay_as_they_are():
    model = network()
    shrinkage = WeightShrinkage(model, l1=1.0, l2=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model[4].weight.clone()
    model[0].weight.data[0] = math.nan
    model[0].weight.grad = torch.zeros_like(model[0].weight)
    shrinkage.add_gradient(optimizer)
    shrinkage.shrink(optimizer)
    assert model[0].weight[0].isnan().all()
    assert torch.equal(model[4].weight, before)  # no gradient
    model[4].weight.grad = torch.zeros_like(model[4].weight)
    model[4].requires_grad_(False)
    shrinkage.shrink(optimizer)
    assert torch.equal(model[4].weight, before)  # frozen since


def test_chooses_by_name_dimensions_and_kind():
    model = network()
    assert list(WeightShrinkage(model, l1=1.0).parameters) == ["0.weight", "4.weight"]
    assert list(WeightShrinkage(model, l1=1.0, include=["4.*"], min_dims=1).parameters) == ["4.weight", "4.bias"]
    everything = WeightShrinkage(model, l1=1.0, min_dims=1, norms=True)
    assert len(everything.parameters) == len(list(model.parameters()))
    unusual = nn.Sequential(nn.LayerNorm([4, 4]), nn.Linear(4, 1))  # a norm whose weight has two dimensions
    assert list(WeightShrinkage(unusual, l1=1.0).parameters) == ["1.weight"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(), "l1 is 0.0 and l2 is 0.0"),
        (dict(l1=1.0, l2=-1.0), "at least 0"),
        (dict(l1=1.0, include=["body.*"]), "no trained parameter"),
        (dict(l1=1.0, include=["3.*"], min_dims=1), "belong to normalisation layers; set norms=True"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        WeightShrinkage(network(), **options)
