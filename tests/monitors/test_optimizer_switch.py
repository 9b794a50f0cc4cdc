"""The switch. Oracle: groups written by hand, and an optimizer that starts there."""

import copy

import pytest
import torch
from torch import nn

from cvplugins.monitors import switch_optimizer


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))


def train(model, optimizer, count=5):
    for seed in range(count):
        torch.manual_seed(seed)
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()


def groups_of(model, **rates):
    return [
        dict(params=[model[0].weight], lr=rates["backbone"], weight_decay=rates["decay"]),
        dict(params=[model[0].bias], lr=rates["backbone"], weight_decay=0.0),
        dict(params=list(model[1].parameters()), lr=rates["head"], weight_decay=rates["decay"] / 2),
    ]


PAIRS = [
    (torch.optim.AdamW, {}, torch.optim.SGD, dict(momentum=0.9)),
    (torch.optim.SGD, dict(momentum=0.9), torch.optim.AdamW, {}),
    (torch.optim.Adam, {}, torch.optim.RMSprop, {}),
]


@pytest.mark.parametrize(("before", "options", "after", "more"), PAIRS)
def test_goes_on_as_one_that_starts_there(before, options, after, more):
    model = network()
    old = before(groups_of(model, backbone=0.001, head=0.01, decay=0.1), lr=0.01, weight_decay=0.1, **options)
    train(model, old)
    expected = copy.deepcopy(model)
    new, ratio = switch_optimizer(old, lambda groups: after(groups, lr=0.05, weight_decay=0.02, **more))
    assert ratio == pytest.approx(5)
    train(model, new)
    train(expected, after(groups_of(expected, backbone=0.005, head=0.05, decay=0.02), lr=0.05, **more))
    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_keeps_the_place_in_the_schedule():
    model = network()
    old = torch.optim.Adam(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(old, step_size=1, gamma=0.5)
    train(model, old, count=1)
    scheduler.step()
    new, _ = switch_optimizer(old, lambda groups: torch.optim.SGD(groups, lr=1.0))
    assert new.param_groups[0]["lr"] == 0.5
    assert new.param_groups[0]["initial_lr"] == 1.0
    assert "betas" not in new.param_groups[0]


def test_hooks_go_along_and_can_still_be_removed():
    model = network()
    old = torch.optim.Adam(model.parameters(), lr=0.1)
    seen = []
    handles = [
        old.register_step_pre_hook(lambda own, *_: seen.append(("pre", type(own).__name__))),
        old.register_step_post_hook(lambda own, *_: seen.append(("post", type(own).__name__))),
    ]
    new, _ = switch_optimizer(old, lambda groups: torch.optim.SGD(groups, lr=1.0))
    train(model, new, count=1)
    assert seen == [("pre", "SGD"), ("post", "SGD")]
    for handle in handles:
        handle.remove()
    train(model, new, count=1)
    assert len(seen) == 2


def test_decay_where_there_was_none_is_the_new_one():
    old = torch.optim.Adam(network().parameters(), lr=0.1)
    new, _ = switch_optimizer(old, lambda groups: torch.optim.SGD(groups, lr=0.1, weight_decay=0.3))
    assert new.param_groups[0]["weight_decay"] == 0.3


def test_refuses_a_rate_of_zero():
    old = torch.optim.Adam(network().parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"a learning rate of 0\.0; it must be above 0"):
        switch_optimizer(old, lambda groups: torch.optim.SGD(groups, lr=0.0))
