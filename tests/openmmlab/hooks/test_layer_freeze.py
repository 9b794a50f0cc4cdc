"""LayerFreezeHook under mmengine's Runner; rates against mmengine's own paramwise_cfg."""

import os

import pytest
import torch
from helpers import run_ranks

pytestmark = pytest.mark.openmmlab

SCHEDULES = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=4),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=4, end=12, T_max=8),
    dict(type="MultiStepLR", by_epoch=True, milestones=[1]),
    dict(type="CosineAnnealingMomentum", by_epoch=False, T_max=12, eta_min=0.1),
]


def run(folder, name, hooks=(), paramwise=None, schedules=SCHEDULES, **options):
    from small_runner import SmallModel, runner

    optimizer = dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=1e-4)
    wrapper = dict(optimizer=optimizer, paramwise_cfg=paramwise)
    model = options.pop("model", None) or SmallModel()
    seed = dict(type="cvplugins.IterationSeedHook")
    options = dict(epochs=3, loader=dict(persistent_workers=False), randomness=dict(seed=0)) | options
    found = runner(
        folder, name, model=model, hooks=[*hooks, seed], optim_wrapper=wrapper, param_scheduler=schedules, **options
    )
    found.train()
    return found


def weights(run):
    return torch.cat([value.detach().flatten() for value in run.model.parameters()])


FACTORS = dict(type="cvplugins.LayerFreezeHook", lr_factors={"first": 0.1, "last.bias": 3.0})


@pytest.mark.parametrize("upstream", [None, dict(bias_decay_mult=1.0)], ids=["one group", "a group a parameter"])
def test_rates_are_those_of_paramwise_cfg(tmp_path, request, upstream):
    keys = {"first": dict(lr_mult=0.1), "last.bias": dict(lr_mult=3.0)}
    expected = run(tmp_path / "one", f"{request.node.name}_one", paramwise=dict(custom_keys=keys))
    found = run(tmp_path / "two", f"{request.node.name}_two", [FACTORS], paramwise=upstream)
    torch.testing.assert_close(weights(found), weights(expected), rtol=1e-6, atol=0)
    rates = [run.message_hub.get_scalar("train/base_lr").data[0].tolist() for run in (expected, found)]
    assert rates[0] == pytest.approx(rates[1])


def test_layers_are_frozen_and_released(tmp_path, request):
    hook = dict(type="cvplugins.LayerFreezeHook", frozen=[dict(layers=["first"], until=1)], by_epoch=True)
    from small_runner import SmallModel

    before = SmallModel().first.weight.detach().clone()
    found = run(tmp_path / "one", f"{request.node.name}_one", [hook], epochs=1)
    assert torch.equal(found.model.first.weight, before)
    assert found.model.first.weight.requires_grad  # restored
    found = run(tmp_path / "two", f"{request.node.name}_two", [hook], epochs=2)
    assert not torch.equal(found.model.first.weight, before)
    log = next((tmp_path / "two").glob("*/*.log")).read_text()
    assert "epoch 0: 2 parameters frozen (first.weight, first.bias); 5 values train" in log
    assert "epoch 1: 2 parameters released (first.weight, first.bias); 13 values train" in log


@pytest.mark.parametrize("epoch", [1, 2])
def test_resumed_run_repeats_the_straight_one(tmp_path, request, epoch):
    hook = dict(FACTORS, frozen=[dict(layers=["first"], until=6)])
    straight = run(tmp_path / "one", f"{request.node.name}_one", [hook])
    options = dict(load_from=str(tmp_path / "one" / f"epoch_{epoch}.pth"), resume=True)
    again = run(tmp_path / "two", f"{request.node.name}_two", [hook], **options)
    assert torch.equal(weights(again), weights(straight))


def test_batch_norms_stand_still_in_both_loops(tmp_path, request):
    from small_runner import SmallModel
    from torch import nn

    for loop in (dict(by_epoch=True, max_epochs=2), dict(by_epoch=False, max_iters=6)):
        model = SmallModel()
        model.first = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4))
        hook = dict(type="cvplugins.LayerFreezeHook", frozen=[dict(layers="first")])
        name = f"{request.node.name}_{loop['by_epoch']}"
        run(tmp_path / name, name, [hook], model=model, train_cfg=loop, schedules=None)
        assert model.first[1].num_batches_tracked == 0
        assert model.first[1].training


def frozen_on_ranks(folder, find_unused):
    from small_runner import SmallModel, runner

    rank = torch.distributed.get_rank()
    hook = dict(type="cvplugins.LayerFreezeHook", frozen=[dict(layers=["first"], until=4)], lr_factors={"last": 0.5})
    wrapper = dict(type="cvplugins.SyncBatchNormDataParallel", find_unused_parameters=find_unused)
    import mmengine.runner.runner as module

    # A process group is there already: helpers.run_ranks has made it, and the launcher would make another.
    module.init_dist = lambda *_, **__: None
    os.environ["LOCAL_RANK"] = str(rank)
    found = runner(
        f"{folder}/{rank}",
        "frozen",
        model=SmallModel(),
        hooks=[hook],
        cfg=dict(model_wrapper_cfg=wrapper),
        launcher="pytorch",
        randomness=dict(seed=0),
    )
    try:
        found.train()
    except ValueError as error:
        return str(error)
    return torch.cat([value.detach().flatten() for value in found.model.parameters()])


@pytest.mark.distributed
def test_ranks_agree_and_are_told_what_ddp_needs(tmp_path):
    first, second = run_ranks(frozen_on_ranks, 2, str(tmp_path / "one"), True, timeout=90)
    assert torch.equal(first, second)
    for message in run_ranks(frozen_on_ranks, 2, str(tmp_path / "two"), False, timeout=90):
        assert "set find_unused_parameters=True at the top of the config" in message


def test_refuses():
    from mmengine.registry import HOOKS

    with pytest.raises(ValueError, match="there is nothing to do; set frozen or lr_factors"):
        HOOKS.build(dict(type="cvplugins.LayerFreezeHook"))
