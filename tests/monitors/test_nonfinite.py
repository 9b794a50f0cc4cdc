"""The guard against NaN and infinity. Oracle: a model that is poisoned at a known place."""

import copy
import math
import time
import warnings

import pytest
import torch
from helpers import run_ranks
from torch import nn

from cvplugins.monitors import NonFiniteError, NonFiniteGuard, Replay, first_nonfinite_layer, reproduce
from cvplugins.monitors.finite import any_suspicious


class Net(nn.Module):
    """Convolution, batch norm and two heads; dropout makes it depend on the random state."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3))
        self.box, self.cls = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, images, target):
        features = self.stem(images).mean((2, 3))
        logits = self.cls(features)
        return {
            "loss_cls": nn.functional.cross_entropy(logits, target),
            "loss_box": [self.box(features).abs().mean(), self.box(features).square().mean()],
        }


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 1, 6, 6, generator=generator), torch.tensor([0, 1, 2, 0])


def total(losses):
    return losses["loss_cls"] + sum(losses["loss_box"])


def step(guard, model, optimizer, iteration, data=None, damage=None):
    """One iteration; returns the action taken, or None."""
    guard.begin(model)
    losses = model(*(data or batch(iteration)))
    total(losses).backward()
    if damage:
        damage(model)
    report = guard.observe(model, losses, iteration, images=("a.jpg", "b.jpg"))
    if report is None:
        guard.snapshot(model, [optimizer], iteration)
        optimizer.step()
        optimizer.zero_grad()
        return None
    optimizer.zero_grad()
    guard.undo_forward(model)
    action = guard.decide(report)
    if action == "rollback":
        guard.roll_back(model, [optimizer])
    return action


def nan_batch():
    images, target = batch()
    images[1, 0, 2, 2] = math.nan
    return images, target


def everything(model):
    return copy.deepcopy(model.state_dict())


def assert_same(state, other):
    torch.testing.assert_close(state, other, rtol=0, atol=0, equal_nan=True)


@pytest.fixture
def model():
    return Net()


@pytest.fixture
def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def test_poisoned_batch_is_named_and_never_reaches_the_weights(model, sgd):
    guard = NonFiniteGuard()
    for iteration in range(3):
        assert step(guard, model, sgd, iteration) is None
    before = everything(model)
    with pytest.raises(NonFiniteError) as caught:
        step(guard, model, sgd, 3, nan_batch())
    for part in ["iteration 3", "loss loss_cls", "statistic stem.1.running_mean", "gradient", "a.jpg, b.jpg"]:
        assert part in str(caught.value)
    assert_same(everything(model), before)


def test_bad_loss_component_is_told_from_the_good_ones(model):
    losses = model(*batch())
    total(losses).backward()
    losses["loss_box"][1] = losses["loss_box"][1] * math.inf
    report = NonFiniteGuard().observe(model, losses, 0)
    assert [(fault.kind, fault.name) for fault in report.faults] == [("loss", "loss_box[1]")]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_bad_gradient_of_one_layer_is_named_and_only_it(model, value):
    losses = model(*batch())
    total(losses).backward()
    model.box.weight.grad[1, 2] = value
    report = NonFiniteGuard().observe(model, losses, 0)
    assert [(fault.kind, fault.name) for fault in report.faults] == [("gradient", "box.weight")]
    kind = "1 NaN and 0 infinite" if math.isnan(value) else "0 NaN and 1 infinite"
    assert report.faults[0].detail == f"{kind} of 16 values"


def test_bad_parameter_comes_before_what_it_causes(model):
    with torch.no_grad():
        model.cls.bias[0] = math.nan
    losses = model(*batch())
    total(losses).backward()
    report = NonFiniteGuard().observe(model, losses, 0)
    assert (report.faults[0].kind, report.faults[0].name) == ("parameter", "cls.bias")
    assert {fault.kind for fault in report.faults} == {"parameter", "loss", "gradient"}


def test_bad_input_is_named_by_its_image(model):
    images, target = nan_batch()
    losses = model(images, target)
    report = NonFiniteGuard().observe(model, losses, 0, inputs={"a.jpg": images[0], "b.jpg": images[1]})
    assert (report.faults[0].kind, report.faults[0].name) == ("input", "b.jpg")


def test_healthy_run_of_500_iterations_raises_no_alarm(model, sgd):
    guard = NonFiniteGuard()
    assert [step(guard, model, sgd, iteration) for iteration in range(500)] == [None] * 500


def test_large_finite_values_are_no_fault(model):
    losses = model(*batch())
    total(losses).backward()
    model.box.weight.grad.fill_(1e30)  # the square overflows in float32
    assert any_suspicious([model.box.weight.grad]).item() == 1
    assert NonFiniteGuard().observe(model, losses, 0) is None


def test_half_precision_and_sparse_gradients():
    assert any_suspicious([torch.full((1000,), 60000.0, dtype=torch.float16)]).item() == 0
    assert any_suspicious([torch.tensor([1.0, math.inf], dtype=torch.bfloat16)]).item() == 1
    assert any_suspicious([torch.tensor([[1.0, math.nan]]).to_sparse()]).item() == 1
    assert any_suspicious([torch.arange(3), torch.zeros(0)]).item() == 0


def test_skipped_iterations_leave_no_trace(model, sgd):
    """The oracle is a run that never saw the bad batch."""
    other = copy.deepcopy(model)
    other_sgd = torch.optim.SGD(other.parameters(), lr=0.05, momentum=0.9)
    guard = NonFiniteGuard("skip")
    for iteration in range(6):
        torch.manual_seed(iteration)
        if iteration == 3:
            assert step(guard, model, sgd, iteration, nan_batch()) == "skip"
            continue
        step(guard, model, sgd, iteration)
        torch.manual_seed(iteration)
        step(NonFiniteGuard(), other, other_sgd, iteration)
    assert_same(everything(model), everything(other))
    assert guard.skips == 1


def test_skips_at_most_so_many_in_a_row(model, sgd):
    guard = NonFiniteGuard("skip", max_skips=2)
    for iteration in range(6):  # two bad ones, a good one, twice
        bad = iteration % 3 < 2
        assert step(guard, model, sgd, iteration, nan_batch() if bad else None) == ("skip" if bad else None)
    step(guard, model, sgd, 6, nan_batch())
    step(guard, model, sgd, 7, nan_batch())
    with pytest.raises(NonFiniteError, match="max_skips=2 iterations in a row were skipped before"):
        step(guard, model, sgd, 8, nan_batch())


def test_skipping_does_not_pretend_to_mend_weights(model, sgd):
    with torch.no_grad():
        model.cls.bias[0] = math.nan
    with pytest.raises(NonFiniteError, match="skipping does not mend weights: use policy='rollback'"):
        step(NonFiniteGuard("skip"), model, sgd, 0)


def test_rolls_back_to_the_snapshot_when_a_step_broke_the_weights(model):
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    guard = NonFiniteGuard("rollback", snapshot_interval=2, max_rollbacks=1)
    states = {}
    for iteration in range(4):
        states[iteration] = everything(model)
        moments = copy.deepcopy(adam.state_dict()["state"])
        if iteration == 3:
            adam.param_groups[0]["lr"] = math.inf
        if iteration <= 2:
            kept = moments
        step(guard, model, adam, iteration)
    assert not model.cls.bias.isfinite().all()
    assert step(guard, model, adam, 4) == "rollback"
    names = dict(model.named_parameters())
    assert_same({name: everything(model)[name] for name in names}, {name: states[2][name] for name in names})
    assert_same(adam.state_dict()["state"], kept)
    assert adam.param_groups[0]["lr"] == math.inf  # the caller's business
    with pytest.raises(NonFiniteError, match="max_rollbacks=1 rollbacks were made before"):
        step(guard, model, adam, 5, nan_batch())


def test_state_survives_a_resume(model, sgd):
    """Killed after one skip, resumed: the next bad iteration is the second in a row."""
    guard = NonFiniteGuard("skip", max_skips=1)
    step(guard, model, sgd, 0, nan_batch())
    resumed = NonFiniteGuard("skip", max_skips=1)
    resumed.load_state_dict(copy.deepcopy(guard.state_dict()))
    for each in (guard, resumed):
        with pytest.raises(NonFiniteError, match="in a row were skipped before"):
            step(each, model, sgd, 1, nan_batch())


def test_void_steps_and_scaled_gradients_are_no_fault(model):
    losses = model(*batch())
    total(losses).backward()
    model.box.weight.grad[0] = math.inf
    guard = NonFiniteGuard()
    assert guard.observe(model, losses, 0, step_is_void=torch.tensor(1.0)) is None
    assert guard.observe(model, losses, 0, gradients=False) is None
    assert guard.observe(model, losses, 0, step_is_void=torch.tensor(0.0)) is not None
    assert guard.observe(model, {"loss": torch.tensor(math.nan)}, 0, gradients=False) is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "ignore"}, "policy is 'ignore'; choose one of raise, skip, rollback"),
        ({"max_skips": 0}, "max_skips is 0; it must be at least 1"),
        ({"max_rollbacks": 0}, "max_rollbacks is 0"),
        ({"snapshot_interval": 0}, "snapshot_interval is 0"),
        ({"lr_factor": 0}, "lr_factor is 0; it must be above 0"),
        ({"lr_factor": 2}, "lr_factor is 2"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        NonFiniteGuard(**options)


def _two_ranks(policy, faulty):
    """Rank ``faulty`` gets a bad batch at iteration 2."""
    model = Net()
    sgd = torch.optim.SGD(model.parameters(), lr=0.05)
    guard = NonFiniteGuard(policy)
    guard.snapshot(model, [sgd], 0, force=True)
    actions, number = [], torch.distributed.get_rank()
    start = time.monotonic()
    try:
        for iteration in range(4):
            bad = iteration == 2 and number == faulty
            actions.append(step(guard, model, sgd, iteration, nan_batch() if bad else None))
    except NonFiniteError as error:
        actions.append(str(error))
    return actions, time.monotonic() - start


@pytest.mark.distributed
@pytest.mark.parametrize("policy", ["raise", "skip", "rollback"])
def test_a_fault_on_one_rank_gives_the_same_decision_on_both(policy):
    (first, seconds), (second, _) = run_ranks(_two_ranks, 2, policy, 1)
    assert first == second
    assert seconds < 30
    if policy == "raise":
        assert "images of rank 1: a.jpg, b.jpg" in first[-1]
    else:
        assert first == [None, None, policy, None]


def _count_collectives():
    calls = []
    original = torch.distributed.all_reduce

    def counted(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    torch.distributed.all_reduce = counted
    try:
        model = Net()
        sgd = torch.optim.SGD(model.parameters(), lr=0.05)
        guard = NonFiniteGuard()
        for iteration in range(5):
            step(guard, model, sgd, iteration)
    finally:
        torch.distributed.all_reduce = original
    return len(calls)


@pytest.mark.distributed
def test_one_collective_an_iteration():
    assert run_ranks(_count_collectives, 2) == [5, 5]


def test_one_read_of_the_device(model, monkeypatch):
    losses = model(*batch())
    total(losses).backward()
    reads = []
    for name in ("item", "tolist", "__bool__", "__float__", "cpu", "numpy"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor,
            name,
            lambda self, *args, original=original, name=name: (reads.append(name), original(self))[1],
        )
    assert NonFiniteGuard().observe(model, losses, 0) is None
    assert reads == ["item"]


@pytest.mark.gpu
def test_one_synchronisation_on_the_gpu(model):
    model.cuda()
    images, target = batch()
    guard = NonFiniteGuard()
    guard.begin(model)
    losses = model(images.cuda(), target.cuda())
    total(losses).backward()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            guard.begin(model)
            guard.observe(model, losses, 0)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    # Not "synchronizing" alone: torch also warns, once a process, that this mode is a prototype.
    assert len([w for w in caught if "called a synchronizing" in str(w.message)]) == 1


def test_first_layer_is_found_and_nothing_is_changed(model):
    with torch.no_grad():
        model.stem[1].weight[2] = math.inf
    before, random = everything(model), torch.get_rng_state()
    guard = NonFiniteGuard()
    guard.begin(model)
    layer = first_nonfinite_layer(model, lambda: model(*batch()), guard.random)
    assert (layer.kind, layer.name) == ("activation", "stem.1")
    assert_same(everything(model), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module._forward_hooks for module in model.modules())


class Lottery(nn.Module):
    """Infinite when dropout takes its only unit: at every other random state."""

    def __init__(self):
        super().__init__()
        self.unit, self.dropout = nn.Linear(1, 1), nn.Dropout(0.5)

    def forward(self, values):
        return {"loss": 1 / self.dropout(self.unit(values)).sum()}


def test_replay_reproduces_what_dropout_decided(tmp_path):
    """The oracle is chance: without the saved random state ten replays would not agree."""
    model, guard, values = Lottery(), NonFiniteGuard(), torch.ones(1)
    for iteration in range(100):
        guard.begin(model)
        report = guard.observe(model, model(values), iteration)
        if report is not None:
            break
    replay = Replay(
        iteration=iteration,
        faults=[(fault.kind, fault.name, fault.detail, fault.rank) for fault in report.faults],
        images=[],
        model=guard.state_before(model),
        optimizers=[],
        random=guard.random,
        batch=values,
    )
    replay.save(tmp_path / "replay.pt")
    loaded = Replay.from_dict(torch.load(tmp_path / "replay.pt", weights_only=True))
    for seed in range(10):
        torch.manual_seed(seed)
        fresh = Lottery()
        faults = reproduce(loaded, fresh, lambda fresh=fresh: fresh(loaded.batch))
        assert {fault.name for fault in faults} >= {"loss", "unit.weight"}


def test_a_file_of_another_kind_is_no_replay():
    with pytest.raises(ValueError, match="it is no replay file"):
        Replay.from_dict({"state_dict": {}})
