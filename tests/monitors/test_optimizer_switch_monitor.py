"""When to switch. Oracle: rates and steps written by hand; what early stopping says of a plateau."""

import json

import pytest
import torch
from fake_run import FakeRun
from torch import nn

from cvplugins.monitors import OptimizerSwitchMonitor

SGD = {"type": "SGD", "lr": 0.01}
PLATEAU = {"monitor": "val/loss", "patience": 2}


class Switch(OptimizerSwitchMonitor):
    """Puts the new optimizer into a fake run."""

    def before_iteration(self, run):
        if self.is_time(run.iteration):
            run.optimizers[""], self.ratio = self.switch(
                run, run.optimizers[""], lambda groups: torch.optim.SGD(groups, lr=self.optimizer["lr"])
            )


def trained(monitor, iterations, folder=None, losses=(), start=0):
    torch.manual_seed(0)
    run = FakeRun(nn.Linear(2, 1), folder, lr=0.1)
    run._iteration = start
    image, target = torch.ones(4, 2), torch.ones(4, 1)
    values = iter(losses)
    evaluate = (lambda run: {"val/loss": next(values)}) if losses else None
    run.train(monitor, [(image, target)] * iterations, evaluate)
    return run


def test_it_switches_once_at_its_step():
    monitor = Switch(SGD, at=3)
    run = trained(monitor, 6)
    assert run.infos == ["iteration 3: SGD follows SGD, with 0.1 times the learning rate"]
    assert monitor.ratio == pytest.approx(0.1)
    assert run.optimizers[""].param_groups[0]["lr"] == pytest.approx(0.01)
    assert not Switch(SGD, at=3).is_time(2)
    assert Switch(SGD, at=3).is_time(7)  # a run that is resumed behind the step


def test_it_switches_before_the_iteration_behind_a_plateau(tmp_path):
    """Evaluations after 2, 4, 6 and 8 iterations, of which those after 6 and 8 are no progress."""
    run = trained(Switch(SGD, plateau=PLATEAU), 12, tmp_path, [1.0, 0.9, 0.9, 0.9, 0.5, 0.4])
    said, switched = run.infos
    assert said == "a plateau of val/loss: no progress in 2 evaluations: 0.9 after a best of 0.9 at iteration 4"
    assert switched.startswith("iteration 8: ")
    records = [json.loads(line) for line in (tmp_path / "optimizer_switch.jsonl").read_text().splitlines()]
    assert [each["iteration"] for each in records] == [2, 4, 6, 8, 10, 12]
    assert [each["switched"] for each in records] == [False, False, False, True, True, True]


def test_values_that_are_not_finite_are_no_progress(tmp_path):
    run = trained(Switch(SGD, plateau=PLATEAU), 6, tmp_path, [1.0, float("inf"), float("inf")])
    assert run.infos[0].startswith("a plateau of val/loss: no progress in 2 evaluations: inf")


@pytest.mark.parametrize(("done", "first"), [(4, "iteration 8"), (6, "iteration 8")])
def test_a_resumed_run_knows_the_plateau(tmp_path, done, first):
    losses = [1.0, 0.9, 0.9, 0.9, 0.5]
    killed, resumed = Switch(SGD, plateau=PLATEAU), Switch(SGD, plateau=PLATEAU)
    trained(killed, done, tmp_path, losses[: done // 2])
    resumed.load_state_dict(killed.state_dict())
    run = trained(resumed, 10 - done, tmp_path, losses[done // 2 :], start=done)
    assert run.infos[1].startswith(first)


def test_the_state_says_which_optimizer_it_is_of():
    monitor = Switch(SGD, at=3)
    trained(monitor, 3)
    assert monitor.state_dict() == {"due": False, "switched": False}
    trained(monitor, 4)
    assert monitor.state_dict() == {"due": True, "switched": True}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either at= a step or at a plateau; set one of them"),
        ({"at": 3, "plateau": PLATEAU}, "set one of them"),
        ({"at": 0}, "at is 0; it must be at least 1"),
        ({"at": 3, "optimizer": {"type": "SGD"}}, "needs type and lr, such as SGD and 0.01, but it is {'type': 'SGD'}"),
        ({"plateau": {"patience": 2}}, "plateau needs the name of a metric"),
        ({"plateau": {**PLATEAU, "patience": 0}}, "patience is 0"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        OptimizerSwitchMonitor(**{"optimizer": SGD, **options})
