"""Clipping under mmengine's Runner. Oracle: upstream's ``optim_wrapper.clip_grad``."""

import copy

import pytest
import torch

from cvplugins.errors import UserError

pytestmark = pytest.mark.openmmlab

CLIP = dict(type="cvplugins.GradientClippingHook", max_norm=0.5, interval=1)


@pytest.fixture
def start(tmp_path, request):
    from small_runner import runner

    def _start(**options):
        torch.manual_seed(0)
        return runner(
            tmp_path,
            f"{request.node.name}_{len(list(tmp_path.iterdir()))}",
            loader={"sampler": {"type": "DefaultSampler", "shuffle": False}},
            **options,
        )

    return _start


def trained(run):
    from cvplugins.randomness import seed_everything

    seed_everything(0)
    run.train()
    return copy.deepcopy(run.model.state_dict())


@pytest.mark.parametrize(("kind", "limit"), [("norm", {"max_norm": 0.5}), ("value", {"clip_value": 0.05})])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_clips_as_upstream_does(start, kind, limit, accumulate):
    wrapper = dict(optimizer=dict(type="SGD", lr=0.05), accumulative_counts=accumulate)
    expected = trained(start(optim_wrapper={**copy.deepcopy(wrapper), "clip_grad": dict(type=kind, **limit)}))
    ours = {"max_norm": 0.5} if kind == "norm" else {"max_value": 0.05}
    hook = dict(type="cvplugins.GradientClippingHook", interval=1, **ours)
    run = start(optim_wrapper=wrapper, hooks=[hook])
    torch.testing.assert_close(trained(run), expected, rtol=1e-6, atol=1e-7)
    logged = run.message_hub.get_scalar("train/gradient/clipped").data[0]
    assert len(logged) == 8 // accumulate  # one a step
    assert set(logged) <= {0.0, 1.0}
    if kind == "norm":
        assert len(run.message_hub.get_scalar("train/gradient/norm_before_clipping").data[0]) == 8 // accumulate
    assert not run.optim_wrapper.optimizer._optimizer_step_pre_hooks


def test_refuses_to_clip_twice(start):
    run = start(optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1), clip_grad=dict(max_norm=35)), hooks=[CLIP])
    with pytest.raises(UserError, match=r"optim_wrapper.clip_grad=\{'max_norm': 35\} would both clip; remove one"):
        run.train()


def test_rules_per_group(start):
    rules = [dict(pattern="first.*", max_norm=0.1), dict(pattern="last.*", clip_factor=0.01)]
    run = start(hooks=[dict(type="cvplugins.GradientClippingHook", rules=rules, interval=2)], epochs=1)
    run.train()
    assert run.message_hub.get_scalar("train/gradient/clipped/last.*").data[0].tolist() == [1, 1]
    assert len(run.message_hub.get_scalar("train/gradient/norm_before_clipping/first.*").data[0]) == 2


def test_a_rule_that_matches_nothing_stops_before_training(start):
    rules = [dict(pattern="bakbone.*", max_norm=0.1)]
    run = start(hooks=[dict(type="cvplugins.GradientClippingHook", rules=rules)])
    with pytest.raises(UserError, match=r"'bakbone.\*' matches no parameter"):
        run.train()


def test_resumed_run_logs_the_same(start, tmp_path):
    """Killed at iteration 4 with an interval of 3: the report at 6 counts iteration 4's step too."""
    hook = {**CLIP, "interval": 3}
    straight = start(hooks=[hook], epochs=2)
    trained(straight)
    again = start(hooks=[hook], epochs=2, load_from=str(tmp_path / "epoch_1.pth"), resume=True)
    again.load_or_resume()
    found = next(each for each in again.hooks if type(each).__name__ == "GradientClippingHook")
    assert found.monitor.state_dict()["steps"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing would be clipped"),
        ({"max_norm": 1, "max_value": 1}, "give one of"),
        ({"max_norm": 1, "rules": []}, "rules and max_norm are both set"),
        ({"rules": [{"patern": "*", "max_norm": 1}]}, "unknown option.*there are: pattern, max_norm"),
        ({"max_norm": 1, "interval": 0}, "interval is 0"),
    ],
)
def test_wrong_options_are_refused_at_construction(options, message):
    from mmengine.registry import HOOKS

    with pytest.raises(ValueError, match=message):
        HOOKS.build(dict(type="cvplugins.GradientClippingHook", **options))
