"""Sums, schedules and learned weights of several losses."""

import math

import numpy as np
import pytest
import torch
from helpers import needs_torch

from cvplugins.losses import (
    CompositeLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    scheduled_weight,
    uncertainty_weighted,
)


def scores():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 4, 5, generator=generator), torch.randint(0, 4, (3, 5), generator=generator)


def test_is_the_weighted_sum_of_its_parts():
    logits, target = scores()
    loss = CompositeLoss({"ce": CrossEntropyLoss(), "dice": DiceLoss()}, {"dice": 3.0})
    ce, dice = CrossEntropyLoss()(logits, target), DiceLoss()(logits, target)
    torch.testing.assert_close(loss(logits, target), ce + 3 * dice)
    torch.testing.assert_close(loss.parts(logits, target), {"ce": ce, "dice": 3 * dice})


def test_arguments_of_the_call_reach_every_part():
    logits, target = scores()
    target[:, 0] = 255
    weight = torch.rand(3, 5)
    loss = CompositeLoss({"ce": CrossEntropyLoss(), "focal": FocalLoss()})
    call = {"weight": weight, "divisor": 7, "ignore_index": 255}
    expected = CrossEntropyLoss()(logits, target, **call) + FocalLoss()(logits, target, **call)
    torch.testing.assert_close(loss(logits, target, **call), expected)


def test_schedule_is_piecewise_linear():
    points = [(10, 1.0), (20, 3.0), (40, 0.0)]
    for iteration in (0, 10, 13, 20, 27, 40, 100):
        expected = np.interp(iteration, [10, 20, 40], [1.0, 3.0, 0.0])
        assert scheduled_weight(points, iteration) == pytest.approx(expected)
    assert scheduled_weight([(5, 2.0)], 0) == scheduled_weight([(5, 2.0)], 9) == 2.0


def test_schedule_follows_the_iteration():
    logits, target = scores()
    loss = CompositeLoss({"ce": CrossEntropyLoss(), "dice": DiceLoss()}, {"dice": [(0, 0.0), (100, 1.0)]})
    ce, dice = CrossEntropyLoss()(logits, target), DiceLoss()(logits, target)
    for iteration, weight in ((0, 0.0), (50, 0.5), (200, 1.0)):
        loss.iteration = iteration
        torch.testing.assert_close(loss(logits, target), ce + weight * dice)


@needs_torch(2, 5, "Dynamo takes tensors in a dict for constants before")
def test_schedule_is_compiled_once():
    from torch._dynamo.testing import CompileCounter

    logits, target = scores()
    loss = CompositeLoss({"ce": CrossEntropyLoss()}, {"ce": [(0, 0.0), (100, 1.0)]})
    counter = CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend=counter)
    for iteration in range(0, 60, 5):
        loss.iteration = iteration
        torch.testing.assert_close(compiled(logits, target), iteration / 100 * CrossEntropyLoss()(logits, target))
    assert counter.frame_count == 1


def test_learned_weight_settles_where_the_paper_says():
    """d/ds (exp(-s) L + s / 2) is 0 for a variance exp(s) of 2 L."""
    log_variance = torch.zeros((), requires_grad=True)
    value = torch.tensor(3.0)
    optimizer = torch.optim.SGD([log_variance], lr=0.3)
    for _ in range(200):
        optimizer.zero_grad()
        uncertainty_weighted(value, log_variance).backward()
        optimizer.step()
    assert log_variance.item() == pytest.approx(math.log(6), abs=1e-4)


def test_learned_weights_are_parameters_and_train():
    logits, target = scores()
    loss = CompositeLoss({"ce": CrossEntropyLoss(), "dice": DiceLoss()}, "learned")
    assert {name for name, _ in loss.named_parameters()} == {"log_variance.ce", "log_variance.dice"}
    assert loss.weight("dice") == 1
    loss(logits, target).backward()
    ce = CrossEntropyLoss()(logits, target)
    torch.testing.assert_close(loss.log_variance["ce"].grad, 0.5 - ce)
    loss.load_state_dict({"log_variance.ce": torch.tensor(0.0), "log_variance.dice": torch.tensor(math.log(2))})
    assert loss.weight("dice") == pytest.approx(0.5)


def test_learned_weight_rests_where_nothing_counts():
    logits, target = scores()
    loss = CompositeLoss({"ce": CrossEntropyLoss()}, "learned")
    value = loss(logits, torch.full_like(target, 255), ignore_index=255)
    value.backward()
    assert value == 0
    assert loss.log_variance["ce"].grad == 0


def test_parts_have_to_read_the_scores_alike():
    assert CompositeLoss({"a": FocalLoss(use_sigmoid=True), "b": FocalLoss(use_sigmoid=True)}).use_sigmoid
    assert not CompositeLoss({"a": FocalLoss()}).use_sigmoid
    mixed = CompositeLoss({"a": FocalLoss(), "b": FocalLoss(use_sigmoid=True)})
    with pytest.raises(ValueError, match=r"use_sigmoid is \{'a': False, 'b': True\}"):
        _ = mixed.use_sigmoid


def test_wrong_options_are_named():
    parts = {"ce": CrossEntropyLoss(), "dice": DiceLoss()}
    with pytest.raises(ValueError, match="weights name dise; the losses are ce, dice"):
        CompositeLoss(parts, {"dise": 1.0})
    with pytest.raises(ValueError, match="unknown weight 'learn' of ce"):
        CompositeLoss(parts, "learn")
    with pytest.raises(ValueError, match=r"schedule of dice has iterations \[5, 3\]; expected ascending"):
        CompositeLoss(parts, {"dice": [(5, 1.0), (3, 0.0)]})
    with pytest.raises(ValueError, match="at least one loss"):
        CompositeLoss({})
    logits, target = scores()
    with pytest.raises(ValueError, match=r"parts of shapes .* have no sum without reduction"):
        CompositeLoss(parts)(logits, target, reduction="none")
