"""Hooks that act at the optimizer's steps: each against a run, a rule or a formula without it."""

import json
import math

import pytest
import torch
from small_detectron2_trainer import AMP, Net, train, weights

pytestmark = pytest.mark.detectron2


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def poison(bad):
    """Return a change that makes the batch of an iteration NaN."""
    return lambda iteration, batch: {**batch, "x": batch["x"] * math.nan} if iteration == bad else batch


@pytest.fixture
def with_amp(monkeypatch):
    """AMPTrainer asks for CUDA; everything stays on the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_the_guard_raises_before_the_weights_are_spoilt(tmp_path):
    """Oracle: the weights of the iteration before, which its checkpoint has."""
    from cvplugins.detectron2 import NonFiniteGuardHook
    from cvplugins.monitors import NonFiniteError

    model = Net()
    with pytest.raises(
        NonFiniteError, match=r"iteration 2: not finite: loss loss_cls, loss_size; .*first layer: "
    ) as error:
        train(tmp_path, [NonFiniteGuardHook(output_dir=str(tmp_path))], iterations=4, change=poison(2), model=model)
    assert "backbone.0" in str(error.value)
    saved = torch.load(tmp_path / "model_0000001.pth")["model"]
    assert equal(dict(model.state_dict()), saved)


@pytest.mark.parametrize("amp", AMP)
def test_a_skipped_iteration_leaves_everything_as_it_was(tmp_path, amp, with_amp):
    """Oracle: the weights of the checkpoints before and after it."""
    from cvplugins.detectron2 import NonFiniteGuardHook

    hook = NonFiniteGuardHook(output_dir=str(tmp_path), policy="skip", find_layer=False)
    trainer = train(tmp_path, [hook], iterations=5, change=poison(2), checkpoint_period=1, eval_period=0, amp=amp)
    models = [torch.load(tmp_path / f"model_000000{index}.pth")["model"] for index in range(4)]
    assert equal(models[1], models[2])
    assert not equal(models[2], models[3])
    assert trainer.storage.latest()["nonfinite/skips"] == (1, 2)
    assert all(value.isfinite().all() for value in weights(trainer).values())


def test_all_batches_of_an_accumulated_step_count(tmp_path):
    """The first of two batches is NaN in a loss whose gradient is not; and the training loss is the mean of both."""
    from detectron2.engine import SimpleTrainer

    from cvplugins.detectron2 import GeneralizationHook, NonFiniteGuardHook

    seen = []

    class Twice(SimpleTrainer):
        def run_step(self):
            self.optimizer.zero_grad()
            for _ in range(2):
                losses = self.model(next(self._data_loader_iter))
                seen.append(sum(losses.values()).item())
                sum(losses.values()).backward()
            self.optimizer.step()

    class Poisoned(Net):
        def forward(self, batch):
            losses = super().forward(batch)
            bad = self.training and batch["file_name"] == "2"
            return {**losses, "loss_size": losses["loss_size"] + math.nan} if bad else losses

    guard, course = (
        NonFiniteGuardHook(output_dir=str(tmp_path), policy="skip"),
        GeneralizationHook(output_dir=str(tmp_path), figure=False),
    )
    train(tmp_path, [guard, course], iterations=4, model=Poisoned(), kind=Twice)
    assert guard.monitor.guard.skips == 1
    assert course.monitor.judge.reports[-1].point.train_loss == pytest.approx(sum(seen[4:]) / 4)


def test_a_rollback_lowers_the_rate_for_good(tmp_path):
    from cvplugins.detectron2 import NonFiniteGuardHook

    hook = NonFiniteGuardHook(output_dir=str(tmp_path), policy="rollback", lr_factor=0.5, snapshot_interval=2)
    trainer = train(tmp_path, [hook], iterations=6, change=poison(3), eval_period=0)
    plain = train(tmp_path / "plain", [], iterations=6, eval_period=0)
    rate, usual = (each.optimizer.param_groups[0]["lr"] for each in (trainer, plain))
    assert rate == pytest.approx(usual / 2)
    again = train(
        tmp_path,
        [NonFiniteGuardHook(output_dir=str(tmp_path), policy="rollback")],
        iterations=8,
        resume=True,
        eval_period=0,
    )
    assert again.scheduler.base_lrs == [0.05]


def test_gradient_norms_and_updates(tmp_path):
    """Oracle: the norm that another hook takes of the gradients, which Detectron2 leaves until the next iteration."""
    from detectron2.engine import HookBase

    from cvplugins.detectron2 import GradientHealthHook

    norms = []

    class Look(HookBase):
        def after_step(self):
            norms.append(torch.nn.utils.clip_grad_norm_(self.trainer.model.parameters(), math.inf).item())

    hook = GradientHealthHook(depth=1, detail_interval=2, output_dir=str(tmp_path))
    trainer = train(tmp_path, [hook], iterations=4, others=[Look()], eval_period=0)
    assert [value for value, _ in trainer.storage.history("gradient/norm").values()] == pytest.approx(norms)
    lines = [json.loads(line) for line in (tmp_path / "gradient_health.jsonl").read_text().splitlines()]
    details = [line for line in lines if "layers" in line]
    assert [line["iteration"] for line in details] == [0, 2]
    assert details[0]["total_norm"] == pytest.approx(norms[0])
    assert "gradient/update_ratio/head" in trainer.storage.latest()
    assert (tmp_path / "gradient_health.png").exists()


def test_gradients_that_are_not_finite_stop_the_run(tmp_path):
    """The losses are finite, so that Detectron2 itself would go on."""
    from cvplugins.detectron2 import GradientHealthHook

    model = Net()
    model.head.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(FloatingPointError, match=r"iteration 0: 1 gradients are not finite: head.weight"):
        train(tmp_path, [GradientHealthHook(output_dir=str(tmp_path))], model=model)
    assert model.head.weight.isfinite().all()


def test_a_penalty_as_gradient_is_weight_decay(tmp_path):
    """Oracle: SGD's own weight_decay on the same parameters."""
    from cvplugins.detectron2 import WeightPenaltyHook

    def decayed(model):
        matrices = [value for value in model.parameters() if value.ndim > 1]
        vectors = [value for value in model.parameters() if value.ndim == 1]
        groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors}]
        return torch.optim.SGD(groups, lr=0.1, momentum=0.9)

    ours = train(tmp_path / "ours", [WeightPenaltyHook(l2=0.01, interval=2)], iterations=4, eval_period=0)
    theirs = train(tmp_path / "theirs", [], iterations=4, eval_period=0, optimizer=decayed)
    for name, value in weights(theirs).items():
        torch.testing.assert_close(weights(ours)[name], value)
    expected = 0.01 / 2 * sum(value.square().sum() for value in ours.model.parameters() if value.ndim > 1).item()
    assert ours.storage.latest()["weight_penalty"] == (pytest.approx(expected), 3)


def test_a_proximal_penalty_makes_zeros(tmp_path):
    from cvplugins.detectron2 import WeightPenaltyHook

    hook = WeightPenaltyHook(l1=1.0, form="proximal", include=["head.*"])
    trainer = train(tmp_path, [hook], iterations=12, eval_period=0)
    assert (trainer.model.head.weight == 0).all()
    assert (trainer.model.backbone[0].weight != 0).all()


def test_frozen_layers_stand_still_until_released(tmp_path):
    from cvplugins.detectron2 import LayerFreezeHook

    hook = LayerFreezeHook(frozen=[{"layers": ["backbone"], "until": 2}])
    start = dict(Net().state_dict())
    trainer = train(tmp_path, [hook], iterations=4, checkpoint_period=1, eval_period=0)
    models = [torch.load(tmp_path / f"model_{index:07}.pth")["model"] for index in range(3)]
    for name in start:
        frozen = name.startswith("backbone")
        assert torch.equal(start[name], models[1][name]) == frozen, name
        if name != "backbone.0.bias":  # which batch norm takes away again
            assert not torch.equal(models[1][name], models[2][name])
    assert all(value.requires_grad for value in trainer.model.parameters())


def test_learning_rates_by_layer_follow_the_schedule_and_resume(tmp_path):
    """Oracle: the rate of the run without factors times the factor; a straight run's weights."""
    from cvplugins.detectron2 import LayerFreezeHook

    def run(folder, iterations, **options):
        hook = LayerFreezeHook(lr_factors={"backbone": 0.1})
        return train(tmp_path / folder, [hook], iterations=iterations, eval_period=0, **options)

    straight = run("straight", 6)
    run("resumed", 4)
    resumed = run("resumed", 6, resume=True)
    plain = train(tmp_path / "plain", [], iterations=6, eval_period=0)
    usual = plain.optimizer.param_groups[0]["lr"]
    for trainer in (straight, resumed):
        rates = [group["lr"] for group in trainer.optimizer.param_groups]
        assert rates == pytest.approx([0.1 * usual, usual])
    assert equal(weights(straight), weights(resumed))


def test_another_optimizer_from_an_iteration_on(tmp_path):
    """Oracle: two runs, of which the second starts from the first's weights with the new optimizer."""
    from cvplugins.detectron2 import OptimizerSwitchHook

    def hook():
        return OptimizerSwitchHook({"type": "AdamW", "lr": 0.01}, at=3, output_dir=str(tmp_path))

    straight = train(tmp_path / "straight", [hook()], iterations=8, eval_period=0)
    assert type(straight.optimizer).__name__ == "AdamW"
    plain = train(tmp_path / "plain", [], iterations=8, eval_period=0)
    assert straight.optimizer.param_groups[0]["lr"] == pytest.approx(plain.optimizer.param_groups[0]["lr"] / 10)
    logged, usual = (trainer.storage.latest()["lr"][0] for trainer in (straight, plain))
    assert logged == pytest.approx(usual / 10)
    train(tmp_path / "resumed", [hook()], iterations=6, eval_period=0)
    resumed = train(tmp_path / "resumed", [hook()], iterations=8, eval_period=0, resume=True)
    assert equal(weights(straight), weights(resumed))
    assert resumed.optimizer.param_groups[0]["lr"] == straight.optimizer.param_groups[0]["lr"]


def test_another_optimizer_at_a_plateau(tmp_path):
    from cvplugins.detectron2 import OptimizerSwitchHook

    plateau = {"monitor": "val/loss", "patience": 1}
    hook = OptimizerSwitchHook({"type": "SGD", "lr": 0.01}, plateau=plateau, output_dir=str(tmp_path))
    rates = []

    def evaluate(trainer):
        rates.append(len(trainer.optimizer.param_groups[0]["params"]) and trainer.optimizer.defaults["momentum"])
        return {"val": {"loss": 1.0}}

    train(tmp_path, [hook], iterations=8, evaluate=evaluate)
    assert rates == [0.9, 0.9, 0, 0]


def test_throughput_counts_images_and_knows_the_evaluations(tmp_path):
    from cvplugins.detectron2 import ThroughputHook
    from cvplugins.detectron2.hooks.throughput import _evaluations_left

    left = []

    class Look(ThroughputHook):
        def after_step(self):
            left.append(_evaluations_left(self.trainer, self.trainer.iter + 1))
            super().after_step()

    hook = Look(interval=2)
    trainer = train(tmp_path, [hook], iterations=6)
    # Due after 2 and 4 iterations, where they are still to come, and at the end.
    assert left == [3, 3, 2, 2, 1, 1]
    latest = trainer.storage.latest()
    seconds = latest["throughput/data_seconds"][0] + latest["throughput/compute_seconds"][0]
    images = 3  # the batch of the small model is a dict of three entries, where Detectron2's is a list of images
    assert latest["throughput/images_per_second"][0] == pytest.approx(images / seconds)
    assert len(hook.monitor.state_dict()["validations"]) == 3
    assert not trainer.model._forward_pre_hooks


@pytest.mark.parametrize("interval", [3, 100], ids=["snapshot after the switch", "snapshot before the switch"])
def test_a_rollback_fits_the_optimizer_that_follows_and_takes_the_average_along(tmp_path, interval):
    """A step of infinite length in iteration 4; oracle: AdamW's steps at the snapshot, or none."""
    from detectron2.engine import HookBase

    from cvplugins.detectron2 import EMAHook, NonFiniteGuardHook, OptimizerSwitchHook

    class Explode(HookBase):
        steps: tuple = ()

        def before_step(self):
            group = self.trainer.optimizer.param_groups[0]
            if self.trainer.iter == 4:
                self.rate, group["lr"] = group["lr"], math.inf
            elif self.trainer.iter == 5:
                group["lr"] = self.rate
                self.trainer.optimizer.register_step_pre_hook(self.look)

        def look(self, optimizer, *args):
            self.steps += ({int(state["step"]) for state in optimizer.state.values()},)

    guard = NonFiniteGuardHook("rollback", snapshot_interval=interval, max_replays=0)
    switch, average = OptimizerSwitchHook(optimizer={"type": "AdamW", "lr": 0.01}, at=1), EMAHook(momentum=0.1)
    last = Explode()
    trainer = train(tmp_path, [switch, guard, average, last], iterations=8, eval_period=0, checkpoint_period=100)
    assert guard.monitor.guard.rollbacks == 1
    assert last.steps[0] == ({2} if interval == 3 else set())  # the switch, 1, 2 | 3, 4
    assert all(value.isfinite().all() for value in weights(trainer).values())
    assert all(value.isfinite().all() for value in average.monitor.state_dict()["average"].values())
