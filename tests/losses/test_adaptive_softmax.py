"""Adaptive softmax against torch's module, and a float64 loop over its clusters."""

import math

import pytest
import torch
from torch import nn

from cvplugins.losses import AdaptiveSoftmaxLoss, adaptive_softmax_loss


def problem(rows=30, frequencies=None):
    torch.manual_seed(0)
    loss = AdaptiveSoftmaxLoss(16, 20, cutoffs=[4, 10], div_value=2.0, head_bias=True, frequencies=frequencies)
    return loss, torch.randn(rows, 16), torch.randint(0, 20, (rows,))


def log_softmax(scores):
    normaliser = math.log(sum(map(math.exp, scores)))
    return [score - normaliser for score in scores]


def product(matrix, vector):
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix.double().tolist()]


def loop(loss, row):
    """Return the log-probability of each class in falling order of frequency, in Python's floats."""
    head = loss.softmax.head
    scores = [a + b for a, b in zip(product(head.weight, row), head.bias.double().tolist(), strict=True)]
    head = log_softmax(scores)
    found = head[:4]
    for cluster, (down, up) in enumerate(loss.softmax.tail):
        found += [head[4 + cluster] + each for each in log_softmax(product(up.weight, product(down.weight, row)))]
    return found


def test_equals_torch():
    loss, features, target = problem()
    expected = loss.softmax(features, target)
    torch.testing.assert_close(loss(features, target), expected.loss)
    torch.testing.assert_close(loss(features, target, reduction="none"), -expected.output)
    function = adaptive_softmax_loss(features, target, loss.softmax)
    torch.testing.assert_close(function, expected.loss)
    torch.testing.assert_close(loss.log_prob(features), loss.softmax.log_prob(features))
    assert loss.predict(features).equal(loss.softmax.predict(features))


@pytest.mark.parametrize("mapped", [False, True])
def test_equals_a_loop(mapped):
    frequencies = torch.randperm(20) * 10.0 if mapped else None
    loss, features, target = problem(6, frequencies)
    place = range(20) if frequencies is None else frequencies.argsort(descending=True).argsort().tolist()
    expected = torch.tensor([[loop(loss, row)[place[index]] for index in range(20)] for row in features.tolist()])
    torch.testing.assert_close(loss.log_prob(features), expected)
    assert loss.predict(features).equal(expected.argmax(1))
    each = loss(features, target, reduction="none")
    torch.testing.assert_close(each, -expected.gather(1, target.unsqueeze(1)).squeeze(1))
    torch.testing.assert_close(loss.log_prob(features).exp().sum(1), torch.ones(6))


def test_classes_may_come_in_any_order():
    """The same model and data with renamed classes."""
    sorted_loss, features, target = problem()
    name = torch.randperm(20)  # of each place
    loss = AdaptiveSoftmaxLoss(16, 20, [4, 10], 2.0, True, frequencies=torch.arange(20, 0, -1)[name.argsort()])
    loss.softmax.load_state_dict(sorted_loss.softmax.state_dict())
    torch.testing.assert_close(loss(features, name[target]), sorted_loss(features, target))
    assert loss.predict(features).equal(name[sorted_loss.predict(features)])
    ignored = name[target].where(target < 12, torch.tensor(-1))
    torch.testing.assert_close(
        loss(features, ignored, ignore_index=-1), sorted_loss(features[target < 12], target[target < 12])
    )


def test_order_is_saved_with_the_parameters():
    loss, features, target = problem(frequencies=range(20))
    other = AdaptiveSoftmaxLoss(16, 20, [4, 10], 2.0, True, frequencies=[1] * 20)
    other.load_state_dict(loss.state_dict())
    torch.testing.assert_close(other(features, target), loss(features, target))


def test_ignored_rows_open_no_cluster():
    loss, features, _ = problem()
    opened = []
    loss.softmax.tail[1].register_forward_hook(lambda *_: opened.append(1))
    target = torch.zeros(30, dtype=torch.long)
    target[5] = 255
    loss(features, target, ignore_index=255).backward()
    assert not opened
    assert loss.softmax.tail[1][0].weight.grad is None or not loss.softmax.tail[1][0].weight.grad.any()


def test_gradients_reach_every_parameter():
    loss, features, target = problem()
    loss(features, target).backward()
    assert all(parameter.grad.any() for parameter in loss.parameters())


def test_half_parameters_are_computed_in_float32():
    loss, features, target = problem()
    half = loss.half()
    value = half(features.half(), target)
    value.backward()
    assert value.dtype == torch.float32
    widened, _, _ = problem()
    widened.load_state_dict(half.state_dict())
    torch.testing.assert_close(value, widened(features.half().float(), target))
    assert loss.bfloat16().predict(features).shape == (30,)  # float16 has no matrix product on a CPU in torch 2.1


def test_wrong_options_are_named():
    loss, features, target = problem()
    with pytest.raises(ValueError, match=r"features \(30, 15\) does not fit: expected \(N, 16\)"):
        loss(features[:, 1:], target)
    with pytest.raises(ValueError, match="frequencies holds 3 numbers; expected 20"):
        AdaptiveSoftmaxLoss(16, 20, [4, 10], 2.0, frequencies=[1, 2, 3])
    with pytest.raises(ValueError, match="8 features leave no dimension for the last of 2 clusters"):
        AdaptiveSoftmaxLoss(8, 20, [4, 10])
    with pytest.raises(ValueError, match="target holds 20; expected 0 to 19"):
        AdaptiveSoftmaxLoss(16, 20, [4], frequencies=range(20))(features, target.clamp(min=20))
    with pytest.raises(ValueError, match="cutoffs should be a sequence"):
        AdaptiveSoftmaxLoss(16, 20, [10, 4], 2.0)
    assert isinstance(loss.softmax, nn.AdaptiveLogSoftmaxWithLoss)
