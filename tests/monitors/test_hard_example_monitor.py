"""Hard images of a training without a framework. Oracle: losses by name, of which one is six times the others."""

import json

import pytest
import torch
from fake_run import FakeRun
from torch import nn

from cvplugins.errors import UserError
from cvplugins.monitors import HardExampleMonitor, HardExamplePlan

NAMES = [f"{index}.png" for index in range(6)]
HARD = "4.png"


def begun(run, plan=None, state=None, **options):
    monitor = HardExampleMonitor(**{"interval": 6, "rate": 1.0, **options})
    monitor.know(NAMES, "file", plan or HardExamplePlan(0.5, 10))
    if state:
        monitor.load_state_dict(state)
    monitor.begin(run)
    return monitor


def train(run, monitor, iterations):
    """See one image an iteration."""
    for _ in range(iterations):
        name = NAMES[run.iteration % len(NAMES)]
        loss = torch.tensor(6.0 if name == HARD else 1.0)
        monitor.observe(monitor.indices([name]), {"loss_cls": loss, "loss": loss})
        monitor.after_iteration(run)
        run._iteration += 1


@pytest.fixture
def run(tmp_path):
    return FakeRun(nn.Linear(1, 1), tmp_path)


def test_the_hard_image_is_found_listed_and_drawn_in_the_interval_after_the_next(run):
    monitor = begun(run)
    train(run, monitor, 12)
    index = NAMES.index(HARD)
    assert monitor.plan.pools == {2: [index], 3: [index]}
    found = json.loads((run.log_dir / "hard_examples.json").read_text())
    assert (found["iteration"], found["seen"], [each["file"] for each in found["images"]]) == (12, 6, [HARD])
    assert run.logged == [(5, {"hard_examples": 1}), (11, {"hard_examples": 1})]
    assert run.plotted == [(5, {"hard_examples/count": 1}), (11, {"hard_examples/count": 1})]
    assert run.infos[0].startswith(f"hard examples: 1 of 6 images seen; the hardest is {HARD}, ")


def test_without_hard_images_the_log_has_no_words(run):
    monitor = begun(run, min_hardness=100.0)
    train(run, monitor, 6)
    assert monitor.plan.pools == {2: []}
    assert run.infos == []


def test_a_resumed_run_goes_on_within_an_interval(run, tmp_path):
    straight = begun(run)
    train(run, straight, 9)
    state = straight.state_dict()
    again = FakeRun(nn.Linear(1, 1), tmp_path)
    again._iteration = 9
    resumed = begun(again, state=state)
    for one, monitor in ((run, straight), (again, resumed)):
        train(one, monitor, 3)
    assert resumed.plan.pools == straight.plan.pools
    assert resumed.estimates.refresh() == straight.estimates.refresh()
    assert HardExampleMonitor().state_dict() == {}  # no data yet


def test_of_equal_names_the_first_image_counts(run):
    monitor = HardExampleMonitor()
    monitor.know(["a", "b", "a"], "file", HardExamplePlan(0.5, 10))
    monitor.begin(run)
    assert monitor.indices(["a", "b"]) == [0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval": 0}, "interval is 0; it must be at least 1"),
        ({"capacity": 0}, "capacity is 0"),
        ({"min_hardness": -1.0}, "min_hardness is -1"),
        ({"rate": 2.0}, "rate is 2"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        HardExampleMonitor(**options)


def test_what_does_not_fit_the_run_is_named(run):
    monitor = HardExampleMonitor(interval=3)
    monitor.know(NAMES, "file", HardExamplePlan(0.5, 10), fetched=4)
    with pytest.raises(ValueError, match="interval is 3; it must be at least 4, the iterations"):
        monitor.begin(run)
    with pytest.raises(UserError, match="the model has no loss 'loss_bbox'; it has loss, loss_cls"):
        begun(run, loss="loss_bbox").observe([0], {"loss_cls": 1.0, "loss": 1.0})
