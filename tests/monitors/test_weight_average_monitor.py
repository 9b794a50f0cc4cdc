"""The average of a training without a framework. Oracle: the rule written out over the weights after each step."""

import copy

import pytest
import torch
from fake_run import FakeRun
from torch import nn

from cvplugins.monitors import Step, WeightAverageMonitor


def model():
    torch.manual_seed(0)
    return nn.Linear(2, 1)


def batches(first, last):
    for seed in range(first, last):
        generator = torch.Generator().manual_seed(seed)
        yield torch.randn(4, 2, generator=generator), torch.randn(4, 1, generator=generator)


class Watched(WeightAverageMonitor):
    """Keeps the weights after each step."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.seen = []

    def after_step(self, run, step):
        super().after_step(run, step)
        self.seen.append(run.model.weight.detach().clone())


def test_the_average_follows_the_steps_and_is_written_at_the_end(tmp_path):
    run, monitor = FakeRun(model(), tmp_path), Watched(0.25, begin_iter=1)
    run.train(monitor, batches(0, 5))
    expected = monitor.seen[1]
    for weight in monitor.seen[2:]:
        expected = expected + 0.25 * (weight - expected)
    written = torch.load(tmp_path / "model_ema.pth", weights_only=True)
    torch.testing.assert_close(written["weights"]["weight"], expected)
    assert written["meta"] == {"updates": 4}
    assert torch.equal(run.model.weight, monitor.seen[-1])
    assert run.infos == [f"the averaged weights lie in {tmp_path / 'model_ema.pth'}"]
    with monitor.applied(run):
        torch.testing.assert_close(run.model.weight, expected)


def test_a_resumed_run_goes_on_with_its_average(tmp_path):
    run, killed, resumed = FakeRun(model(), tmp_path), WeightAverageMonitor(0.25), WeightAverageMonitor(0.25)
    run.train(killed, batches(0, 3))
    resumed.load_state_dict(copy.deepcopy(killed.state_dict()))
    run.train(resumed, batches(3, 5))
    straight = WeightAverageMonitor(0.25)
    FakeRun(model(), tmp_path).train(straight, batches(0, 5))
    assert resumed.state_dict()["updates"] == straight.state_dict()["updates"] == 5
    for name, value in straight.state_dict()["average"].items():
        assert torch.equal(resumed.state_dict()["average"][name], value)


def test_an_average_of_other_weights_is_named(tmp_path):
    monitor = WeightAverageMonitor()
    monitor.load_state_dict({"updates": 1, "average": {"head.weight": torch.zeros(1)}})
    with pytest.raises(ValueError, match="the stored average is that of other weights: 3 differ, as bias"):
        monitor.begin(FakeRun(model(), tmp_path))


def test_a_step_that_a_fused_optimizer_skips_does_not_count(tmp_path):
    """As GradScaler does: it hands over what it found, and the optimizer leaves the step out itself."""
    run, monitor = FakeRun(model(), tmp_path), WeightAverageMonitor()
    monitor.begin(run)
    optimizer = run.optimizers[""]
    for found, updates in ((1.0, 0), (0.0, 1)):
        optimizer.found_inf = torch.tensor(found)
        monitor.after_step(run, Step(optimizer))
        assert monitor.state_dict()["updates"] == updates


def test_nothing_is_written_without_an_update(tmp_path):
    FakeRun(model(), tmp_path).train(WeightAverageMonitor(begin_iter=9), batches(0, 2))
    assert not list(tmp_path.iterdir())


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="momentum is 2; it must be between 0 and 1"):
        WeightAverageMonitor(2)
