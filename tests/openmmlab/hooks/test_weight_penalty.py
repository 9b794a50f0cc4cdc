"""WeightPenaltyHook under mmengine's Runner."""

import pytest
import torch

pytestmark = pytest.mark.openmmlab


def run(folder, name, hooks=(), weight_decay=0.0, **options):
    from small_runner import runner

    optimizer = dict(type="SGD", lr=0.01, weight_decay=weight_decay)
    wrapper = dict(optimizer=optimizer, clip_grad=dict(max_norm=0.1), paramwise_cfg=dict(bias_decay_mult=0.0))
    run = runner(folder, name, hooks=hooks, optim_wrapper=wrapper, randomness=dict(seed=0), **options)
    run.train()
    return run


def test_l2_is_weight_decay_after_clipping(tmp_path, request):
    hook = dict(type="cvplugins.WeightPenaltyHook", l2=0.5, interval=2)
    expected = run(tmp_path / "torch", f"{request.node.name}_torch", weight_decay=0.5)
    found = run(tmp_path / "hook", f"{request.node.name}_hook", [hook])
    for one, other in zip(expected.model.parameters(), found.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert len(found.message_hub.get_scalar("train/weight_penalty").data[0]) == 4
    assert found.message_hub.get_scalar("train/weight_sparsity").current() == 0.0
    assert not found.optim_wrapper.optimizer._optimizer_step_pre_hooks


def test_proximal_step_zeroes_weights_and_says_so(tmp_path, request):
    hook = dict(type="cvplugins.WeightPenaltyHook", l1=100.0, form="proximal", include=["last.*"], interval=1)
    found = run(tmp_path, request.node.name, [hook])
    assert not found.model.last.weight.any()
    assert found.model.first.weight.all()
    assert found.message_hub.get_scalar("train/weight_sparsity").current() == 1.0
    assert "100.00% of the penalised weights are 0; most in last.weight" in next(tmp_path.glob("*/*.log")).read_text()


def test_warns_of_two_decays(tmp_path, request):
    run(tmp_path, request.node.name, [dict(type="cvplugins.WeightPenaltyHook", l2=0.1)], weight_decay=0.1)
    assert "comes on top of the optimizer's weight_decay" in next(tmp_path.glob("*/*.log")).read_text()


def test_resumed_run_repeats_the_straight_one(tmp_path, request):
    hooks = [
        dict(type="cvplugins.WeightPenaltyHook", l1=0.5, l2=0.1, form="proximal"),
        dict(type="cvplugins.IterationSeedHook"),
    ]
    loader = dict(persistent_workers=False)
    straight = run(tmp_path / "one", f"{request.node.name}_one", hooks, loader=loader)
    options = dict(load_from=str(tmp_path / "one" / "epoch_1.pth"), resume=True, loader=loader)
    again = run(tmp_path / "two", f"{request.node.name}_two", hooks, **options)
    for one, other in zip(straight.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(l1=1.0, form="loss"), "form is 'loss'; use one of gradient, proximal"),
        (dict(), "one has to be above 0"),
        (dict(l1=1.0, interval=0), "interval is 0"),
    ],
)
def test_refuses(options, message):
    from mmengine.registry import HOOKS

    with pytest.raises(ValueError, match=message):
        HOOKS.build(dict(type="cvplugins.WeightPenaltyHook", **options))
