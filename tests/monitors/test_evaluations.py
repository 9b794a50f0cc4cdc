"""Monitors that learn from evaluations, against a run without a framework, straight and killed.

Oracle: by hand, or the straight run.
"""

import json
import math

import pytest
import torch
from fake_run import FakeRun
from torch import nn

from cvplugins.errors import UserError
from cvplugins.monitors import (
    BestCheckpointMonitor,
    EarlyStoppingMonitor,
    GeneralizationMonitor,
    OptimizerSwitchMonitor,
)

LOSSES = [1.0, 0.8, 0.9, 0.85, 0.7, 0.6]  # patience of 2 ends with the fourth


class Killed(Exception):
    """The process is gone."""


class Training:
    """A run that evaluates every two iterations, to ``values``, and notes its weights at each evaluation."""

    def __init__(self, folder, values=LOSSES, name="val/loss", kill=None, start=0):
        torch.manual_seed(0)
        self.run = FakeRun(nn.Linear(3, 1), folder)
        self.run._iteration = start
        self.values, self.name, self.kill, self.start = values, name, kill, start
        self.at_evaluations = {}

    def evaluate(self, run):
        if run.iteration == self.kill:
            raise Killed
        self.at_evaluations[run.iteration] = weights(run.model)
        value = self.values[run.iteration // 2 - 1]
        return {"other": 1.0} if value is None else {"other": 1.0, self.name: value}

    def train(self, monitor, state=None):
        if state is not None:
            monitor.load_state_dict(state)
        torch.manual_seed(1)
        batches = [(torch.randn(8, 3), torch.randn(8, 1)) for _ in range(2 * len(self.values))]
        self.run.train(monitor, batches[self.start :], self.evaluate)
        return self.run


def weights(model):
    return torch.cat([value.detach().flatten() for value in model.parameters()])


def saved(path):
    return torch.cat([value.flatten() for value in torch.load(path)["weights"].values()])


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def stopping(**options):
    return EarlyStoppingMonitor("val/loss", **{"patience": 2, **options})


def test_stops_and_puts_the_best_weights_back(tmp_path):
    training = Training(tmp_path)
    run = training.train(stopping())
    reason = "no progress in 2 evaluations: 0.85 after a best of 0.8 at iteration 4"
    assert (run.iteration, run.stopped) == (8, reason)
    assert torch.equal(weights(run.model), training.at_evaluations[4])
    path = tmp_path / "best_weights.pth"
    assert torch.equal(saved(path), training.at_evaluations[4])
    assert torch.load(path)["meta"] == {"iteration": 4, "val/loss": 0.8}
    assert lines(tmp_path / "early_stopping.jsonl")[-1] == dict(
        iteration=8, metric="val/loss", value=0.85, best=0.8, waited=2, stop=reason
    )
    assert run.infos == [
        f"val/loss of 1 is the best so far: {path}",
        f"val/loss of 0.8 is the best so far: {path}",
        f"early stopping by val/loss: {reason}",
        f"the model has the weights after iteration 4 again, with the best val/loss of 0.8; they lie in {path}",
    ]


def test_a_run_to_its_end_has_the_best_weights_too(tmp_path):
    training = Training(tmp_path, LOSSES[:3])
    run = training.train(stopping())
    assert run.stopped is None
    assert torch.equal(weights(run.model), training.at_evaluations[4])


def test_keeps_no_weights_where_none_are_wanted(tmp_path):
    (tmp_path / "best_weights.pth").write_text("of somebody else")
    training = Training(tmp_path)
    run = training.train(stopping(restore_best=False))
    assert torch.equal(weights(run.model), training.at_evaluations[8])
    assert (tmp_path / "best_weights.pth").read_text() == "of somebody else"


def test_weights_that_are_lost_are_told(tmp_path):
    class Lost(Training):
        def evaluate(self, run):
            (tmp_path / "best_weights.pth").unlink(missing_ok=run.iteration == 2)
            return super().evaluate(run)

    run = Lost(tmp_path, [0.5, 0.6]).train(stopping())
    (warning,) = run.warnings
    assert "cannot be restored" in warning
    assert warning.endswith("the model has the weights of the last iteration")


def test_nan_stops(tmp_path):
    run = Training(tmp_path, [1.0, math.nan, 0.5]).train(stopping())
    assert run.stopped == "the value is nan after a best of 1 at iteration 2"


def test_evaluations_outside_of_the_training_do_not_count(tmp_path):
    monitor = stopping()
    run = Training(tmp_path).train(monitor)
    monitor.evaluated(run, {"val/loss": 0.0}, {"iteration": 9})
    stopping().evaluated(run, {"val/loss": 0.0}, {"iteration": 9})
    assert len(lines(tmp_path / "early_stopping.jsonl")) == 4


def test_the_best_checkpoint_of_a_resumed_run(tmp_path):
    monitor = BestCheckpointMonitor("val/loss")
    first = Training(tmp_path, [0.5, math.inf])
    first.train(monitor)
    path = tmp_path / "model_best.pth"
    assert torch.equal(saved(path), first.at_evaluations[2])
    Training(tmp_path, [0.5, math.inf, 0.4, 0.7], start=4).train(
        BestCheckpointMonitor("val/loss"), monitor.state_dict()
    )
    assert torch.load(path)["meta"] == {"iteration": 6, "val/loss": 0.4}
    assert [line["best"] for line in lines(tmp_path / "best_checkpoint.jsonl")] == [0.5, 0.5, 0.4, 0.4]


def switching(**plateau):
    return OptimizerSwitchMonitor({"type": "SGD", "lr": 0.01}, plateau=plateau)


MONITORS = {
    "early_stopping": stopping,
    "best_checkpoint": lambda: BestCheckpointMonitor("val/loss"),
    "optimizer_switch": lambda: switching(monitor="val/loss", patience=2),
    "generalization": lambda: GeneralizationMonitor(figure=False),
}


@pytest.mark.parametrize("name", MONITORS)
@pytest.mark.parametrize(("saved_at", "kill"), [(4, 6), (2, 8), (0, 6)])
def test_killed_and_resumed_is_the_straight_run(tmp_path, name, saved_at, kill):
    """A checkpoint is written before the evaluation of its iteration, and knows of none that came later."""
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    expected = Training(straight).train(MONITORS[name]())
    state, monitor = None, MONITORS[name]()

    class Saving(Training):
        def evaluate(self, run):
            nonlocal state
            if run.iteration == saved_at:
                state = json.loads(json.dumps(monitor.state_dict()))
            return super().evaluate(run)

    with pytest.raises(Killed):
        Saving(killed, kill=kill).train(monitor)
    assert lines(killed / f"{name}.jsonl")[-1]["iteration"] == kill - 2
    found = Training(killed, start=saved_at).train(MONITORS[name](), state)
    assert found.stopped == expected.stopped
    assert lines(killed / f"{name}.jsonl") == lines(straight / f"{name}.jsonl")


def test_a_stopped_run_stays_stopped_until_it_has_more_patience(tmp_path):
    monitor = stopping()
    Training(tmp_path).train(monitor)
    run = Training(tmp_path, start=8).train(stopping(), monitor.state_dict())
    assert (run.iteration, run.stopped) == (8, "no progress in 2 evaluations before it was resumed")
    run = Training(tmp_path, start=8).train(stopping(patience=3), monitor.state_dict())
    assert (run.iteration, run.stopped) == (12, None)


def test_a_stop_that_the_checkpoint_does_not_know_stops_again(tmp_path):
    monitor = stopping()
    state = monitor.state_dict()
    Training(tmp_path).train(monitor)
    run = Training(tmp_path, start=8).train(stopping(), state)
    assert (run.iteration, run.stopped) == (8, "no progress in 2 evaluations: 0.85 after a best of 0.8 at iteration 4")
    assert len(lines(tmp_path / "early_stopping.jsonl")) == 4


def test_a_new_run_in_an_old_folder_begins_anew(tmp_path):
    Training(tmp_path).train(stopping())
    run = Training(tmp_path, [9.0, 8.0, math.nan]).train(stopping())
    assert run.stopped.startswith("the value is nan after a best of 8")
    assert len(lines(tmp_path / "early_stopping.jsonl")) == 3


def test_an_evaluation_that_is_known_does_not_count_again(tmp_path):
    monitor = stopping()
    run = FakeRun(nn.Linear(3, 1), tmp_path)
    monitor.begin(run)
    for value in (0.5, 0.1):
        monitor.evaluated(run, {"val/loss": value}, {"iteration": 6, "epoch": 3})
    (record,) = lines(tmp_path / "early_stopping.jsonl")
    assert (record["value"], record["epoch"]) == (0.5, 3)
    assert torch.load(tmp_path / "best_weights.pth")["meta"] == {"iteration": 6, "epoch": 3, "val/loss": 0.5}
    assert [monitor.knows(each) for each in (5, 6, 7)] == [True, True, False]


def test_undefined_is_no_value_yet(tmp_path):
    """The third evaluation has the first value and the fourth the best; nothing counts before."""
    values = [None, None, 0.4, 0.2, None, 0.3]
    run = Training(tmp_path, values).train(stopping(patience=5))
    records = lines(tmp_path / "early_stopping.jsonl")
    assert [record["value"] for record in records] == values
    assert [record.get("waited") for record in records] == [None, None, 0, 0, None, 1]
    assert run.infos[0] == "early stopping: no value yet: val/loss is undefined in this evaluation"
    assert torch.load(tmp_path / "best_weights.pth")["meta"] == {"iteration": 8, "val/loss": 0.2}


def test_a_number_that_no_evaluation_has(tmp_path):
    with pytest.raises(
        UserError, match=r"^early stopping: there is no 'bbox/AP' among .*; use one of other, val/loss$"
    ):
        Training(tmp_path).train(EarlyStoppingMonitor("bbox/AP"))
    # Which names can come is not known here, but it came once.
    run = Training(tmp_path, [0.5, None], name="bbox/AP").train(EarlyStoppingMonitor("bbox/AP"))
    assert run.infos[-2] == "early stopping: no value yet: bbox/AP is undefined in this evaluation"


def test_a_plateau_is_told_once(tmp_path):
    monitor = switching(monitor="val/loss", patience=2)
    run = Training(tmp_path, [1.0, 1.0, math.inf, 1.0, 0.9]).train(monitor)
    assert monitor.due
    assert run.infos == ["a plateau of val/loss: no progress in 2 evaluations: inf after a best of 1 at iteration 2"]
    switched = [record["switched"] for record in lines(tmp_path / "optimizer_switch.jsonl")]
    assert switched == [False, False, True, True, True]


@pytest.mark.parametrize("kind", [BestCheckpointMonitor, EarlyStoppingMonitor, switching])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(monitor="fid"), "'fid' is better is not clear from the name; set rule='greater' or 'less'"),
        (dict(monitor="val/loss", rule="min"), "rule is 'min'; use 'less' or 'greater'"),
    ],
)
def test_options_out_of_range_are_named(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)
