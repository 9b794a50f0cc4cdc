"""Freezing. Oracle: what an optimizer moves, and what it would do with groups written by hand."""

import copy

import pytest
import torch
from torch import nn

from cvplugins.monitors import FreezeRule, LayerFreeze, split_learning_rates


def network():
    torch.manual_seed(0)
    backbone = nn.Sequential()
    for layer in ("layer1", "layer2"):
        backbone.add_module(layer, nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    return nn.ModuleDict({"backbone": backbone, "head": nn.Linear(4, 1)})


def step(model, optimizer):
    """One iteration as a train loop makes it; return the names of all parameters and buffers that changed."""
    before = copy.deepcopy(model.state_dict())
    optimizer.zero_grad()
    model["head"](model["backbone"](torch.randn(8, 4))).square().mean().backward()
    optimizer.step()
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


RULES = [dict(layers=["backbone"], until=3), dict(layers="backbone.layer1.*", until=6)]


def run(model, freeze, optimizer, steps):
    changed = []
    for iteration in steps:
        model.train()
        freeze.observe(iteration)
        changed.append(step(model, optimizer))
    return changed


def test_frozen_layers_and_their_statistics_stand_still():
    """Momentum and weight decay would move a parameter whose gradient is 0."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    step(model, optimizer)  # momentum, and gradients left over
    changed = run(model, LayerFreeze(model, RULES), optimizer, range(8))
    every = set(model.state_dict())
    assert changed[:3] == [{name for name in every if name.startswith("head")}] * 3
    assert changed[3:6] == [{name for name in every if not name.startswith("backbone.layer1")}] * 3
    assert changed[6:] == [every] * 2


def test_rules_may_begin_later_and_never_end():
    model = network()
    freeze = LayerFreeze(model, [FreezeRule(("head.bias",), begin=2), FreezeRule(("backbone",), until=4, begin=3)])
    reports = [freeze.observe(n) for n in range(6)]
    assert [report and (len(report.frozen), len(report.released)) for report in reports] == [
        None, None, (1, 0), (8, 0), (0, 8), None,
    ]  # fmt: skip
    assert reports[2].trainable == sum(p.numel() for p in model.parameters()) - 1


def test_what_the_model_froze_stays_frozen():
    model = network()
    model["backbone"].layer1.requires_grad_(False)
    model["backbone"].layer1.eval()
    freeze = LayerFreeze(model, RULES)
    for n in range(8):
        freeze.observe(n)
    assert not any(p.requires_grad for p in model["backbone"].layer1.parameters())
    assert not model["backbone"].layer1[1].training  # norm_eval, as mmdet has it
    assert model["backbone"].layer2[1].training
    assert all(p.requires_grad for p in model["backbone"].layer2.parameters())


def test_norms_without_parameters_follow_their_rule():
    model = nn.Sequential(nn.BatchNorm1d(2, affine=False), nn.Linear(2, 1))
    freeze = LayerFreeze(model, [dict(layers="0", until=1)])
    freeze.observe(0)
    assert not model[0].training
    freeze.observe(1)
    assert model[0].training


def test_restore_leaves_the_model_as_it_came():
    model = network()
    freeze = LayerFreeze(model, RULES)
    freeze.observe(0)
    freeze.restore()
    assert all(p.requires_grad for p in model.parameters())
    assert all(module.training for module in model.modules())


def test_a_monitor_that_begins_in_the_middle_does_the_same():
    straight, resumed = network(), network()
    torch.manual_seed(1)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (straight, resumed)]
    first = run(straight, LayerFreeze(straight, RULES), optimizers[0], range(8))
    run(resumed, LayerFreeze(resumed, RULES), optimizers[1], range(4))
    for parameter in resumed.parameters():
        parameter.requires_grad_(True)  # as a new process builds it
    assert run(resumed, LayerFreeze(resumed, RULES), optimizers[1], range(4, 8)) == first[4:]


def test_rates_are_those_of_groups_written_by_hand():
    model = network()
    groups = [dict(params=[p for p in model.parameters() if p.ndim > 1], weight_decay=0.1, initial_lr=0.5)]
    groups.append(dict(params=[p for p in model.parameters() if p.ndim < 2]))
    optimizer = torch.optim.SGD(groups, lr=0.2)
    origins = split_learning_rates(optimizer, model, {"backbone": 0.1, "*.layer2": 0.3})
    assert origins == [(0, 0.1), (0, 0.3), (0, 1.0), (1, 0.1), (1, 0.3), (1, 1.0)]
    found = {
        id(p): (g["lr"], g["weight_decay"], g.get("initial_lr")) for g in optimizer.param_groups for p in g["params"]
    }
    factors = {"backbone.layer1": 0.1, "backbone.layer2": 0.3, "head": 1.0}
    for name, parameter in model.named_parameters():
        factor = next(factor for layer, factor in factors.items() if name.startswith(layer))
        expected = (0.2 * factor, 0.1, 0.5 * factor) if parameter.ndim > 1 else (0.2 * factor, 0, None)
        assert found[id(parameter)] == expected


def test_a_torch_scheduler_keeps_the_factors():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    split_learning_rates(optimizer, model, {"backbone": 0.1})
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for _ in range(5):
        step(model, optimizer)
        scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.5])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (dict(layers=[]), "names no layers"),
        (dict(layers="head", until=0), "from step 0 until 0"),
        (dict(layers="head", begin=-1), "from step -1"),
        (dict(layers="backbon.layer1"), r"'backbon.layer1' names no layer of the model; there are backbone.layer1"),
    ],
)
def test_refuses_rules(rule, message):
    with pytest.raises(ValueError, match=message):
        LayerFreeze(network(), [rule])


def test_refuses_factors():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(ValueError, match="the factor of head is 0"):
        split_learning_rates(optimizer, model, {"head": 0})
    with pytest.raises(ValueError, match="'neck' names no layer"):
        split_learning_rates(optimizer, model, {"neck": 0.1})
