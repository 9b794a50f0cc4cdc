"""Recomputed statistics. Oracle: mean and unbiased variance of the joined values, in float64."""

import copy
import random

import numpy as np
import pytest
import torch
import torch.distributed as dist
from helpers import run_ranks
from torch import nn

from cvplugins.norm import SyncBatchNorm, apply_norm_policy, recompute_statistics

SHAPES = [(4, 3, 5, 7), (1, 3, 2, 2), (6, 3, 1, 9), (2, 3, 8, 8)]


def batches(shapes=SHAPES, shift=0.0):
    generator = torch.Generator().manual_seed(int(shift))
    return [torch.randn(shape, generator=generator) * 2 + index + shift for index, shape in enumerate(shapes)]


def joined(inputs):
    values = torch.cat([x.movedim(1, 0).flatten(1) for x in inputs], 1).double()
    return values.mean(1), values.var(1)


def assert_statistics(layer, inputs, tolerance=1e-6):
    mean, var = joined(inputs)
    torch.testing.assert_close(layer.running_mean.double(), mean, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(layer.running_var.double(), var, rtol=tolerance, atol=tolerance)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.Dropout(), nn.BatchNorm2d(4))


def test_statistics_are_those_of_all_values_whatever_the_batch_sizes():
    model, inputs, inner = network(), batches(), []
    model[3].register_forward_pre_hook(lambda _, args: inner.append(args[0]))
    report = recompute_statistics(model, inputs, 10)
    assert report.batches == 4
    assert_statistics(model[0], inputs)
    assert_statistics(model[3], inner)


def test_stale_statistics_of_moving_weights_are_mended():
    """The disease: weights that moved after the running averages were made; the oracle is the training batch itself."""
    model, inputs = network().train(), batches([(64, 3, 8, 8)] * 3)
    for each in inputs * 20:
        model(each)
    with torch.no_grad():
        model[1].weight.mul_(3), model[1].bias.add_(5)
    stale = copy.deepcopy(model)
    report = recompute_statistics(model, inputs, 3)
    assert report.drift["3"] > 0.5 > report.drift["0"]
    for candidate in (stale, model):
        candidate[2].p = 0.0
    expected = model.train()(inputs[1])
    errors = [(candidate.eval()(inputs[1]) - expected).abs().mean() for candidate in (stale, model)]
    assert errors[1] < errors[0] / 3


def test_a_healthy_model_is_not_stale():
    model, inputs = nn.Sequential(nn.BatchNorm2d(3)), batches([(32, 3, 8, 8)] * 4)[:1] * 4
    for each in inputs * 125:
        model(each)
    assert recompute_statistics(model, inputs, 4).drift["0"] < 1e-3


def randomness():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


class Counter(nn.Module):
    """A layer with a state of its own."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, input):
        self.calls += 1
        return input + random.random() + np.random.random()


def everything_else(model):
    state = {name: value.clone() for name, value in model.state_dict().items() if "running" not in name}
    layers = [
        (layer.training, getattr(layer, "momentum", None), len(layer._forward_pre_hooks)) for layer in model.modules()
    ]
    return state, layers, randomness()


@pytest.mark.parametrize("fails", [False, True])
def test_all_else_is_as_before_even_after_an_error(fails):
    model = nn.Sequential(Counter(), network(), Counter())
    model[1][0].momentum = None
    model(batches()[0])
    statistics, before = copy.deepcopy(model[1][0].state_dict()), everything_else(model)
    model.append(nn.Identity())

    def forward(batch):
        model(batch)
        if fails:
            raise KeyError("broken image")

    if fails:
        with pytest.raises(KeyError, match="broken image"):
            recompute_statistics(model, batches(), 3, forward=forward)
        torch.testing.assert_close(dict(model[1][0].state_dict()), dict(statistics), rtol=0, atol=0)
    else:
        recompute_statistics(model, batches(), 3, forward=forward)
    del model[3]
    after = everything_else(model)
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=0)
    assert after[1:] == before[1:]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_uses_no_more_batches_than_asked():
    used = iter(batches())
    assert recompute_statistics(network(), used, 2).batches == 2
    assert len(list(used)) == 2


def test_frozen_evaluating_and_converted_layers_stay_and_unused_ones_are_named():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = nn.BatchNorm2d(3)
            self.evaluating = nn.BatchNorm2d(3).eval()
            self.frozen = nn.BatchNorm2d(3)
            self.group = nn.BatchNorm2d(3)
            self.none = nn.BatchNorm2d(3, track_running_stats=False)
            self.unused = nn.BatchNorm2d(3)

        def forward(self, x):
            return self.none(self.group(self.frozen(self.evaluating(self.used(x)))))

    model = Model()
    apply_norm_policy(
        model, [{"to": "FrozenBN", "names": ["frozen"]}, {"to": "GN", "names": ["group"], "num_groups": 3}]
    )
    before = copy.deepcopy(model.state_dict())
    report = recompute_statistics(model, batches(), 4)
    assert (list(report.drift), report.unused) == (["used"], ("unused",))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"used.running_mean", "used.running_var"}
    assert "not reached: unused" in str(report)


def test_a_layer_that_is_used_twice_counts_both():
    norm = nn.BatchNorm2d(3)
    inputs = batches()
    recompute_statistics(nn.Sequential(norm), inputs, 4, forward=lambda x: (norm(x), norm(x + 10)))
    assert_statistics(norm, [*inputs, *(x + 10 for x in inputs)])


def test_large_means_and_half_precision_keep_their_digits():
    inputs = [x + 10_000 for x in batches()]
    model = nn.Sequential(nn.BatchNorm2d(3))
    recompute_statistics(model, inputs, 4)
    # A batch's mean of 1e4 is rounded to 5e-4 in float32; E[x^2] - E[x]^2 would be off by as much as the variance.
    assert_statistics(model[0], inputs, tolerance=1e-3)
    half = [x.bfloat16() for x in batches()]
    recompute_statistics(model, half, 4)
    assert_statistics(model[0], half)


def test_without_batch_norms_no_batch_is_drawn():
    assert recompute_statistics(nn.Linear(1, 1), iter(()), 3).batches == 0


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="num_batches is 0; it must be at least 1"):
        recompute_statistics(network(), batches(), 0)
    with pytest.raises(ValueError, match="no batch reached any of 2 batch norms"):
        recompute_statistics(network(), [], 1)


def on_ranks():
    rank = dist.get_rank()
    mine = batches(SHAPES[: 2 * rank], shift=10.0 * rank)  # the first rank has none
    plain = nn.Sequential(nn.BatchNorm2d(3))
    report = recompute_statistics(plain, mine, 9)
    synchronised = nn.Sequential(SyncBatchNorm(3))
    recompute_statistics(synchronised, batches(SHAPES, shift=float(rank)), 9)
    with pytest.raises(ValueError, match="no batch reached"):
        recompute_statistics(plain, [], 9)
    return plain.state_dict(), report, synchronised.state_dict()


@pytest.mark.distributed
def test_ranks_put_uneven_batches_together():
    found = run_ranks(on_ranks, 3)
    plain, synchronised = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    for states, report, others in found:
        plain.load_state_dict({name.removeprefix("0."): value for name, value in states.items()})
        assert_statistics(plain, [*batches(SHAPES[:2], shift=10.0), *batches(SHAPES, shift=20.0)])
        assert report.drift == found[0][1].drift
        synchronised.load_state_dict({name.removeprefix("0."): value for name, value in others.items()})
        assert_statistics(synchronised, [x for rank in range(3) for x in batches(SHAPES, shift=float(rank))])
    assert [report.batches for _, report, _ in found] == [0, 2, 4]
