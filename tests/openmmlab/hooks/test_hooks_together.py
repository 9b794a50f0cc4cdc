"""Hooks that must not spoil each other's state: rollbacks with other hooks, and steps that never come."""

import math

import pytest

from cvplugins.errors import UserError

pytestmark = pytest.mark.openmmlab

GUARD = dict(type="cvplugins.NonFiniteGuardHook", policy="rollback", max_replays=0)
SGD = dict(type="SGD", lr=0.01, momentum=0.9)
ADAM = dict(type="AdamW", lr=0.01)
BY_ITERATION = dict(type="IterBasedTrainLoop", max_iters=12, val_interval=4)


def finite(values):
    return all(value.isfinite().all() for value in values)


@pytest.fixture
def start(tmp_path, request):
    """Return a Runner whose optimizer makes one step of infinite length; 4 iterations an epoch."""
    from mmengine.hooks import Hook
    from validated_runner import validated_runner

    class Explode(Hook):
        def __init__(self, iteration):
            self.iteration = iteration

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            group = runner.optim_wrapper.optimizer.param_groups[0]
            if runner.iter == self.iteration:
                self.rate, group["lr"] = group["lr"], math.inf
            elif runner.iter == self.iteration + 1:
                group["lr"] = self.rate

    names = []

    def _start(*hooks, bad=None, **options):
        names.append(None)
        given = [dict(hook) for hook in hooks] + ([Explode(bad)] if bad is not None else [])
        options.setdefault("optim_wrapper", dict(optimizer=ADAM))
        metrics = {"val/loss": [1.0] * 6}
        return validated_runner(tmp_path, f"{request.node.name}_{len(names)}", metrics, given, epochs=3, **options)

    return _start


@pytest.mark.parametrize("interval", [4, 100], ids=["snapshot after the switch", "snapshot before the switch"])
def test_a_rollback_restores_the_moments_of_the_optimizer_that_follows(start, interval):
    """Oracle: the moments at the snapshot; AdamW's would let SGD's successor fail, and SGD's let AdamW's."""
    from mmengine.hooks import Hook

    steps = {}

    class Record(Hook):
        """Between the guard, which rolls back in the step, and what comes after."""

        priority = "LOWEST"

        def before_train(self, runner):
            run.optim_wrapper.optimizer.register_step_pre_hook(self.record)

        def record(self, optimizer, *args):
            steps[run.iter] = {int(state.get("step", -1)) for state in optimizer.state.values()}

    switch = dict(type="cvplugins.OptimizerSwitchHook", optimizer=ADAM, at=2)
    run = start(dict(GUARD, snapshot_interval=interval), switch, bad=5, optim_wrapper=dict(optimizer=SGD))
    run.register_hook(Record())
    run.train()
    assert type(run.optim_wrapper.optimizer).__name__ == "AdamW"
    assert finite(run.model.parameters())
    assert steps[5] == {3}  # of iterations 2, 3 and 4
    assert steps[6] == ({2} if interval == 4 else set())


def test_a_rollback_takes_the_average_along(start):
    run = start(dict(GUARD, snapshot_interval=2), dict(type="EMAHook", momentum=0.1), bad=5)
    run.train()
    average = next(hook for hook in run.hooks if type(hook).__name__ == "EMAHook").ema_model
    assert finite(run.model.parameters())
    assert finite(average.parameters())
    assert int(average.steps) < 12  # went back


def test_bad_weights_are_rolled_back_before_they_are_validated_by_iteration(start):
    """The step before the validation breaks the weights."""
    from mmengine.hooks import Hook

    seen = []

    class Look(Hook):
        def before_val(self, runner):
            seen.append(finite(runner.model.parameters()))

    run = start(dict(GUARD, snapshot_interval=2), bad=3, train_cfg=BY_ITERATION, default_hooks={})
    run.register_hook(Look())
    run.train()
    assert seen == [True, True, True]


SWITCH = dict(type="cvplugins.OptimizerSwitchHook", optimizer=SGD, at=2, by_epoch=True)
FREEZE = dict(type="cvplugins.LayerFreezeHook", frozen=[dict(layers=["first"], until=2)], by_epoch=True)


@pytest.mark.parametrize(("hook", "option"), [(SWITCH, "at"), (FREEZE, "begin")], ids=["switch", "freeze"])
def test_epochs_of_a_loop_without_any_are_refused(start, hook, option):
    run = start(hook, train_cfg=BY_ITERATION, default_hooks={})
    with pytest.raises(UserError, match=rf"Hook: {option} counts epochs, and IterBasedTrainLoop has none"):
        run.train()


@pytest.mark.parametrize("by_epoch", [False, True])
def test_steps_behind_the_end_are_told(start, tmp_path, by_epoch):
    end = 3 if by_epoch else 12
    rules = [dict(layers=["first.weight"], until=end), dict(layers=["first.bias"], until=end - 1)]
    late = dict(SWITCH, at=end, by_epoch=by_epoch)
    start(dict(FREEZE, frozen=rules, by_epoch=by_epoch), late).train()
    text = next(tmp_path.glob("*/*.log")).read_text()
    what = f"never comes: the training ends after {end} {'epochs' if by_epoch else 'iterations'}"
    assert text.count("never comes") == 2
    assert f"LayerFreezeHook: until={end} {what}" in text
    assert f"OptimizerSwitchHook: at={end} {what}" in text


def test_a_validation_does_not_change_what_training_draws(start, tmp_path):
    """By iterations and without workers both draw from the same generators; oracle: a run without validations."""
    options = dict(train_cfg=BY_ITERATION, default_hooks={}, loader=dict(sampler=dict(type="InfiniteSampler")))
    seed = dict(type="cvplugins.IterationSeedHook")
    losses = []
    for change in ({}, {"train_cfg": {**BY_ITERATION, "val_interval": 100}}):
        run = start(seed, **{**options, **change})
        run.train()
        losses.append(run.message_hub.get_scalar("train/loss").data[0].tolist())
    assert losses[0] == losses[1]


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_an_iteration_with_two_optimizers_is_answered_once(start, tmp_path, policy):
    """As a GAN trains: each has a forward pass and a step of its own, and the batch is bad in both."""
    from mmengine.hooks import Hook
    from mmengine.optim import OptimWrapper, OptimWrapperDict
    from small_runner import SmallModel
    from torch.optim import SGD as SGDOptimizer

    class TwoSteps(SmallModel):
        def train_step(self, data, optim_wrapper):
            for wrapper in optim_wrapper.values():
                loss, logs = self.parse_losses(self(**data, mode="loss"))
                wrapper.update_params(loss)
            return logs

    class Poison(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 5:
                data_batch["inputs"] *= math.nan

    model = TwoSteps()
    wrappers = {
        name: OptimWrapper(SGDOptimizer(part.parameters(), lr=0.01))
        for name, part in (("first", model.first), ("last", model.last))
    }
    guard = dict(GUARD, policy=policy, max_replays=3)
    run = start(guard, model=model, optim_wrapper=OptimWrapperDict(**wrappers))
    run.register_hook(Poison(), priority="VERY_HIGH")
    run.train()
    monitor = next(hook for hook in run.hooks if type(hook).__name__ == "NonFiniteGuardHook").monitor
    assert (monitor.guard.skips, monitor.guard.rollbacks) == ((1, 0) if policy == "skip" else (0, 1))
    rate = 0.01 if policy == "skip" else 0.005
    assert [wrapper.param_groups[0]["lr"] for wrapper in wrappers.values()] == [rate, rate]
    assert finite(model.parameters())
