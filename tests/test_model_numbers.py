"""Numbers of a model outside of its state_dict: what counts, copies, restoring, and what an iteration leaves behind."""

from collections import deque

import numpy as np
import torch
from torch import nn

from cvplugins.model_numbers import ModelNumbers, kept_numbers
from cvplugins.safe_loading import load_plain


class Assigner:
    def __init__(self):
        self.threshold = 0.5


class Samples:
    def __init__(self):
        self.indices = torch.arange(3)


class Logger:
    def __init__(self):
        self.lines = 0


class Head(nn.Module):
    """Counts in every way that a head of mmdet or Detectron2 counts in."""

    def __init__(self, logger=None):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.assigners = [Assigner(), Assigner()]
        self.history = []
        self.recent = deque(maxlen=2)
        self.counts = np.zeros(2)
        self.mean = torch.zeros(2)
        self.size = None
        self.momentum = 0.9
        self.logger = logger
        self.register_buffer("priors", torch.zeros(2), persistent=False)

    def train_a_little(self):
        self.history.append(np.float64(0.25))
        self.recent.append(3)
        self.counts += 1
        self.mean = self.mean + 0.5
        self.priors.add_(1)
        self.size = (64, 96)
        self.assigners[1].threshold = 0.6
        self.lazy = 7
        self.samples = Samples()
        self.activation = self.layer(torch.ones(1, 2))
        if self.logger:
            self.logger.lines += 1


def plain(head):
    names = ("history", "recent", "counts", "mean", "priors", "size", "lazy")
    values = {name: getattr(head, name, "none") for name in names}
    values["history"] = [float(value) for value in head.history]  # a checkpoint holds Python's numbers, not NumPy's
    return repr({**values, "thresholds": [each.threshold for each in head.assigners]})


def test_everything_that_training_changes_and_nothing_else(tmp_path):
    """Oracle: the head that nobody stopped; the file holds plain data alone."""
    straight, resumed = Head(Logger()), Head(Logger())
    numbers, again = ModelNumbers(straight, (Logger,)), ModelNumbers(resumed, (Logger,))
    straight.train_a_little()
    torch.save(numbers.changed(), tmp_path / "state.pth")
    state = load_plain(tmp_path / "state.pth")
    own = {"history", "recent", "counts", "mean", "priors", "size", "lazy"}
    assert {name: set(values) for name, values in state.items()} == {"": own, "assigners.1": {"threshold"}}
    again.restore(state)
    assert plain(resumed) == plain(straight)
    for head in (straight, resumed):
        head.train_a_little()
    assert plain(resumed) == plain(straight)
    assert len(state[""]["history"]) == 1  # a copy


def test_what_was_restored_is_saved_again_though_nothing_changed_since():
    first, second = Head(), Head()
    numbers = ModelNumbers(first)
    first.train_a_little()
    again = ModelNumbers(second)
    again.restore(numbers.changed())
    assert ModelNumbers(second).changed() == {}
    assert again.changed()["assigners.1"] == {"threshold": 0.6}


def test_another_config_counts_where_training_changed_nothing():
    numbers = ModelNumbers(first := Head())
    first.train_a_little()
    second = Head()
    second.momentum = 0.5
    ModelNumbers(second).restore(numbers.changed())
    assert second.momentum == 0.5


def test_a_model_without_the_part_is_left_alone():
    numbers = ModelNumbers(first := Head())
    first.train_a_little()
    ModelNumbers(other := nn.Linear(2, 2)).restore({"assigners.1": numbers.changed()["assigners.1"]})
    assert not hasattr(other, "assigners")


def test_numbers_are_kept_around_a_validation():
    head = Head()
    before = plain(head)
    buffer = head.priors
    with kept_numbers(head):
        head.train_a_little()
    head.priors = torch.zeros(2)  # buffers are for functional_call
    assert plain(head) == before
    assert buffer[0] == 1
    assert head.recent.maxlen == 2
