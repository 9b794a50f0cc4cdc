"""EarlyStoppingHook under mmengine's Runner, with given metrics; what it decides is tested with the monitors."""

import json
import math
import os
from types import SimpleNamespace

import pytest
import torch
from helpers import run_ranks

pytestmark = pytest.mark.openmmlab

STOP = dict(type="cvplugins.EarlyStoppingHook", monitor="val/loss", patience=2)
LOSSES = [1.0, 0.8, 0.9, 0.85, 0.7, 0.6]  # stops after the fourth


def run(folder, name, losses=LOSSES, hooks=(STOP,), **options):
    from validated_runner import Killed, validated_runner

    run = validated_runner(folder, name, {"val/loss": losses}, hooks, **options)
    try:
        run.train()
    except Killed:
        assert "kill" in options
    return run


def weights(run):
    return torch.cat([value.detach().flatten() for value in run.model.parameters()])


def saved(path):
    state = torch.load(path, weights_only=False)["state_dict"]
    return torch.cat([value.flatten() for value in state.values()])


def test_stops_and_restores_the_best_weights(tmp_path, request):
    found = run(tmp_path, request.node.name)
    assert found.epoch == 4
    assert torch.equal(weights(found), saved(tmp_path / "epoch_2.pth"))
    assert torch.equal(saved(tmp_path / "best_weights.pth"), saved(tmp_path / "epoch_2.pth"))
    (last,) = [json.loads(line) for line in (tmp_path / "early_stopping.jsonl").read_text().splitlines()][3:]
    assert (last["iteration"], last["epoch"], last["waited"]) == (16, 4, 2)
    found.call_hook("after_val_epoch", metrics={"none": 0.0})  # runner.val() after the training
    assert len((tmp_path / "early_stopping.jsonl").read_text().splitlines()) == 4
    log = next(tmp_path.glob("*/*.log")).read_text()
    assert "early stopping by val/loss: no progress in 2 evaluations: 0.85 after a best of 0.8 at iteration 8" in log
    assert "the model has the weights after iteration 8 again" in log


def test_restores_what_was_evaluated_when_weights_are_averaged(tmp_path, request):
    """EMAHook swaps the weights for a validation, and again for a test."""
    ema = dict(type="EMAHook", momentum=0.3)
    found = run(tmp_path, request.node.name, hooks=[STOP, ema])
    # CheckpointHook puts the average into state_dict.
    assert torch.allclose(weights(found), saved(tmp_path / "epoch_2.pth"))
    assert not torch.allclose(weights(found), saved(tmp_path / "epoch_4.pth"))
    before = weights(found)
    found.call_hook("before_test_epoch")
    assert torch.equal(weights(found), before)


@pytest.mark.parametrize("kill", [("before_train_epoch", 3), ("before_val", 4)])
def test_killed_and_resumed_decides_as_the_straight_run(tmp_path, request, kill):
    """Kills after a validation and before one, which is then owed, and stops: the checkpoint knows of neither."""
    straight = run(tmp_path / "straight", f"{request.node.name}_straight")
    run(tmp_path / "killed", f"{request.node.name}_killed", kill=kill)
    last = tmp_path / "killed" / f"epoch_{kill[1]}.pth"
    again = run(tmp_path / "killed", f"{request.node.name}_again", load_from=str(last), resume=True)
    assert again.epoch == straight.epoch == 4
    lines = [(tmp_path / name / "early_stopping.jsonl").read_text() for name in ("straight", "killed")]
    assert lines[0] == lines[1]
    assert torch.equal(saved(tmp_path / "killed" / "best_weights.pth"), weights(again))


def test_a_new_run_in_an_old_folder_begins_anew(tmp_path, request):
    run(tmp_path, request.node.name)
    options = dict(load_from=str(tmp_path / "epoch_4.pth"))  # weights only: it is another run
    found = run(tmp_path, f"{request.node.name}_again", losses=[9.0, 8.0, 7.0, 6.0, 5.0, 4.0], **options)
    assert found.epoch == 6
    assert len((tmp_path / "early_stopping.jsonl").read_text().splitlines()) == 6


def test_stops_iteration_based_runs(tmp_path, request):
    from validated_runner import Given, validated_runner

    class EachFour(Given):
        def after_val_epoch(self, runner, metrics=None):
            metrics["val/loss"] = LOSSES[runner.iter // 4 - 1]

    found = validated_runner(
        tmp_path,
        request.node.name,
        {},
        [STOP, EachFour({})],
        train_cfg=dict(by_epoch=False, max_iters=24, val_interval=4),
        loader=dict(sampler=dict(type="InfiniteSampler", shuffle=True)),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=4, by_epoch=False)),
    )
    found.train()
    assert found.iter == 16
    assert torch.equal(weights(found), saved(tmp_path / "iter_8.pth"))


def test_says_what_is_wrong(tmp_path, request):
    from mmengine.registry import HOOKS

    from cvplugins.errors import UserError

    with pytest.raises(ValueError, match="EarlyStoppingHook: patience is 0"):
        HOOKS.build(dict(STOP, patience=0))
    with pytest.raises(UserError, match=r"no 'loss' among the metrics of the validation; use one of val/loss"):
        run(tmp_path, request.node.name, hooks=[dict(STOP, monitor="loss")])
    with pytest.raises(UserError, match="EarlyStoppingHook cannot stop a FakeLoop"):
        HOOKS.build(STOP).before_train(SimpleNamespace(train_loop=type("FakeLoop", (), {})()))


def stopped_on_ranks(folder):
    import mmengine.runner.runner as module
    from validated_runner import hook_of, validated_runner

    rank = torch.distributed.get_rank()
    # A process group is there already: helpers.run_ranks has made it, and the launcher would make another.
    module.init_dist = lambda *_, **__: None
    os.environ["LOCAL_RANK"] = str(rank)
    values = [1.0, 0.9, 0.8, math.nan if rank else 0.7, 0.6, 0.5]
    found = validated_runner(
        folder,
        "ranks",
        {"val/loss": values},
        [STOP],
        cfg=dict(model_wrapper_cfg=dict(type="cvplugins.SyncBatchNormDataParallel")),
        launcher="pytorch",
    )
    found.train()
    return found.epoch, hook_of(found, "EarlyStoppingHook").monitor.state_dict(), weights(found)


@pytest.mark.distributed
def test_ranks_stop_together_when_one_sees_nan(tmp_path):
    first, second = run_ranks(stopped_on_ranks, 2, str(tmp_path), timeout=90)
    assert first[0] == second[0] == 4
    assert first[1] == second[1]
    assert torch.equal(first[2], second[2])
    assert torch.equal(first[2], saved(tmp_path / "epoch_3.pth"))
    assert len((tmp_path / "early_stopping.jsonl").read_text().splitlines()) == 4
