"""OptimizerSwitchHook under mmengine's Runner."""

import pytest
import torch
from helpers import needs_torch

pytestmark = pytest.mark.openmmlab

SGD = dict(type="SGD", lr=0.004, momentum=0.9, weight_decay=0.01)
ADAM = dict(type="AdamW", lr=0.02, weight_decay=0.1)
AT = dict(type="cvplugins.OptimizerSwitchHook", optimizer=SGD, at=6)
SCHEDULES = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=3),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=3, end=24, T_max=21),
    dict(type="CosineAnnealingMomentum", by_epoch=False, T_max=24, eta_min=0.5),
]
LOSSES = [1.0, 0.9, 0.9, 0.9, 0.8, 0.7]  # a plateau of two after the fourth epoch


def run(folder, name, hooks=(AT,), optimizer=ADAM, kill=None, paramwise=None, epochs=6, **options):
    from validated_runner import Killed, validated_runner

    hooks = [*hooks, dict(type="cvplugins.IterationSeedHook")]
    keys = dict(custom_keys={"first": dict(lr_mult=0.1), "last.bias": dict(decay_mult=0.0)})
    wrapper = dict(optimizer=optimizer, paramwise_cfg=keys if paramwise else None, clip_grad=dict(max_norm=1.0))
    wrapper.update(options.pop("wrapper", {}))
    options = dict(loader=dict(persistent_workers=False), param_scheduler=SCHEDULES) | options
    run = validated_runner(
        folder, name, {"val/loss": LOSSES}, hooks, kill, epochs=epochs, optim_wrapper=wrapper, **options
    )
    try:
        run.train()
    except Killed:
        assert kill
    return run


def weights(run):
    return torch.cat([value.detach().flatten() for value in run.model.parameters()])


@pytest.mark.parametrize("paramwise", [False, True])
def test_rates_follow_the_schedule_at_the_new_base(tmp_path, request, paramwise):
    """Oracle: the rates of a run that has the new optimizer from the start."""
    found = run(tmp_path / "one", f"{request.node.name}_one", paramwise=paramwise)
    runs = [
        run(tmp_path / str(n), f"{request.node.name}_{n}", (), optimizer, paramwise=paramwise)
        for n, optimizer in enumerate((ADAM, SGD))
    ]
    for name in ("train/lr", "train/base_lr") if paramwise else ("train/lr",):
        adam, sgd, both = (each.message_hub.get_scalar(name).data[0].tolist() for each in (*runs, found))
        assert both == pytest.approx([*adam[:6], *sgd[6:]])
    optimizer = found.optim_wrapper.optimizer
    assert type(optimizer).__name__ == "SGD"
    expected = runs[1].optim_wrapper.optimizer.param_groups
    assert [group["weight_decay"] for group in optimizer.param_groups] == pytest.approx(
        [group["weight_decay"] for group in expected]
    )
    assert all(group["momentum"] < 0.9 for group in optimizer.param_groups)  # still scheduled
    assert (
        "iteration 6: SGD follows AdamW, with 0.2 times the learning rate"
        in next((tmp_path / "one").glob("*/*.log")).read_text()
    )


PLATEAU = dict(
    type="cvplugins.OptimizerSwitchHook", optimizer=SGD, plateau=dict(monitor="val/loss", patience=2)
)  # fmt: skip


@pytest.mark.parametrize(
    ("hook", "first"),
    [(AT, 6), (dict(AT, at=3, by_epoch=True), 12), (PLATEAU, 16)],
    ids=["iteration", "epoch", "plateau"],
)
def test_resumes_on_either_side(tmp_path, request, hook, first):
    straight = run(tmp_path / "one", f"{request.node.name}_one", [hook])
    log = next((tmp_path / "one").glob("*/*.log")).read_text()
    assert f"iteration {first}: SGD follows AdamW" in log
    before = first // 4
    for epoch, kill in ((before, "before_val"), (before, "before_train_epoch"), (before + 1, "before_train_epoch")):
        name = f"{epoch}_{kill}"
        run(tmp_path / name, f"{request.node.name}_{name}", [hook], kill=(kill, epoch))
        options = dict(load_from=str(tmp_path / name / f"epoch_{epoch}.pth"), resume=True)
        again = run(tmp_path / name, f"{request.node.name}_{name}_again", [hook], **options)
        assert torch.equal(weights(again), weights(straight)), name


def test_weights_of_a_run_that_has_switched_begin_a_run_that_has_not(tmp_path, request):
    """Its state belongs to the run that wrote it: with ``load_from`` alone the new one switches at its own time."""
    run(tmp_path / "one", f"{request.node.name}_one", epochs=2)
    options = dict(load_from=str(tmp_path / "one" / "epoch_2.pth"), epochs=2)
    found = run(tmp_path / "two", f"{request.node.name}_two", **options)
    assert type(found.optim_wrapper.optimizer).__name__ == "SGD"
    assert "iteration 6: SGD follows AdamW" in next((tmp_path / "two").glob("*/*.log")).read_text()


def test_to_adam_from_sgd(tmp_path, request):
    found = run(tmp_path, request.node.name, [dict(AT, optimizer=ADAM)], SGD)
    (group,) = found.optim_wrapper.optimizer.param_groups
    assert type(found.optim_wrapper.optimizer).__name__ == "AdamW"
    assert group["betas"][0] == pytest.approx(group["momentum"])  # as mmengine schedules it


@needs_torch(2, 3, "no GradScaler for the CPU before")
def test_loss_scale_and_accumulation_carry_over(tmp_path, request):
    from mmengine.optim import AmpOptimWrapper, OptimWrapper
    from small_runner import SmallModel

    class CPUAmp(AmpOptimWrapper):  # the original wants a GPU
        def __init__(self, **options):
            OptimWrapper.__init__(self, **options)
            self._scale_update_param = None
            self.loss_scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=3)
            self.cast_dtype = torch.bfloat16

    model = SmallModel()
    wrapper = CPUAmp(optimizer=torch.optim.AdamW(model.parameters(), lr=0.02), accumulative_counts=2)
    from validated_runner import validated_runner

    hooks = [AT, dict(type="cvplugins.GradientHealthHook", interval=1)]
    found = validated_runner(
        tmp_path, request.node.name, {"val/loss": LOSSES}, hooks, model=model, optim_wrapper=wrapper
    )
    found.train()
    # 24 iterations, 12 steps, of which every third doubles the scale
    assert wrapper.loss_scaler.get_scale() == 64.0 * 2**4
    assert type(wrapper.optimizer).__name__ == "SGD"
    assert len(found.message_hub.get_scalar("train/gradient/norm").data[0]) == 12
    saved = torch.load(tmp_path / "epoch_6.pth", weights_only=False)["optimizer"]
    assert saved["loss_scaler"]["scale"] == 64.0 * 2**4


def test_wrong_options_are_told_of_the_hook():
    from mmengine.registry import HOOKS

    with pytest.raises(ValueError, match="OptimizerSwitchHook: at is 0"):
        HOOKS.build({**AT, "at": 0})
