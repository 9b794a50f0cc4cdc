"""GeneralizationHook under mmengine's Runner, with given metrics."""

import json

import pytest

pytestmark = pytest.mark.openmmlab

HOOK = dict(type="cvplugins.GeneralizationHook", val_metric="score", metric_rule="greater", window=6)
METRICS = {
    "val/loss": [1.0, 0.5, 0.3, 0.3, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4],
    "score": [0.9, 0.9, 0.9, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3],
}


def run(folder, name, hooks=(HOOK,), **options):
    from validated_runner import Killed, validated_runner

    wrapper = dict(optimizer=dict(type="SGD", lr=0.005))
    run = validated_runner(folder, name, METRICS, hooks, epochs=10, optim_wrapper=wrapper, **options)
    try:
        run.train()
    except Killed:
        assert "kill" in options
    return run


def records(folder):
    return [json.loads(line) for line in (folder / "generalization.jsonl").read_text().splitlines()]


def test_warns_writes_and_draws(tmp_path, request):
    found = run(tmp_path, request.node.name)
    lines = records(tmp_path)
    assert [line["verdict"] for line in lines][:5] == ["too early"] * 5
    assert lines[-1]["verdict"] == "overfitting"
    losses = found.message_hub.get_scalar("train/loss").data[0]
    assert [line["train_loss"] for line in lines] == pytest.approx(losses.reshape(10, 4).mean(1).tolist(), rel=1e-5)
    assert (tmp_path / "generalization.png").stat().st_size > 10_000
    log = next(tmp_path.glob("*/*.log")).read_text()
    assert "WARNING - generalization after iteration" in log
    assert log.count("overfitting: val_") == 2  # once when found, once at the end


def test_killed_and_resumed_says_the_same(tmp_path, request):
    """The training loss since the validation before is in the checkpoint."""
    seed = dict(type="cvplugins.IterationSeedHook")
    run(tmp_path / "straight", f"{request.node.name}_straight", [HOOK, seed])
    run(tmp_path / "killed", f"{request.node.name}_killed", [HOOK, seed], kill=("before_val", 8))
    last = str(tmp_path / "killed" / "epoch_8.pth")
    run(tmp_path / "killed", f"{request.node.name}_again", [HOOK, seed], load_from=last, resume=True)
    assert records(tmp_path / "killed") == records(tmp_path / "straight")


def test_says_what_is_wrong(tmp_path, request):
    from mmengine.registry import HOOKS

    with pytest.raises(ValueError, match="the name of val_loss or of val_metric is needed"):
        HOOKS.build(dict(type="cvplugins.GeneralizationHook", val_loss=None))
    with pytest.raises(ValueError, match="a training step gives no 'acc'; use one of loss"):
        run(tmp_path, request.node.name, [dict(HOOK, train_metric="acc")])
