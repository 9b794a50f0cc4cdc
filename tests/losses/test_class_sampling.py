"""Distributions of classes against their sums, and samples against the counts that are expected of them."""

import math

import pytest
import torch

from cvplugins.losses import ByFrequency, LogUniform, Uniform
from cvplugins.losses.class_sampling import class_distribution

DISTRIBUTIONS = {
    "log_uniform": LogUniform(30),
    "uniform": Uniform(30),
    "frequency": ByFrequency([0.5, 100, *range(1, 29)]),
}
every_distribution = pytest.mark.parametrize("distribution", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)


@every_distribution
def test_probabilities_sum_to_one(distribution):
    torch.testing.assert_close(distribution.probability(torch.arange(30)).sum(), torch.tensor(1.0))


@every_distribution
def test_quantiles_invert_the_cumulated_probability(distribution):
    classes = torch.arange(30)
    upper = distribution.probability(classes).double().cumsum(0)
    lower = upper - distribution.probability(classes)
    for share in (lower + 1e-6, (lower + upper) / 2, upper - 1e-6):
        assert distribution.quantile(share).equal(classes)
    assert distribution.quantile(torch.tensor([1 - 2**-53], dtype=torch.float64)) == 29


def test_log_uniform_equals_its_formula():
    expected = [math.log((k + 2) / (k + 1)) / math.log(31) for k in range(30)]
    torch.testing.assert_close(LogUniform(30).probability(torch.arange(30)), torch.tensor(expected))


@every_distribution
@pytest.mark.parametrize("num_sampled", [1, 10])
def test_classes_come_as_often_as_expected(distribution, num_sampled):
    torch.manual_seed(0)
    every, seen, expected, rounds = torch.arange(30), torch.zeros(30), torch.zeros(30), 3000
    for _ in range(rounds):
        classes, draws = distribution.sample(num_sampled)
        assert len(classes.unique()) == num_sampled
        assert draws >= num_sampled
        seen[classes] += 1 / rounds
        expected += distribution.expected_count(every, draws) / rounds
    # Four standard deviations of a share in 3000 rounds. The counts are estimates, good for a few of many classes.
    torch.testing.assert_close(seen, expected, rtol=0, atol=0.04)


@pytest.mark.parametrize("raced", [False, True])
def test_race_and_rejection_give_one_distribution(raced):
    """Of three classes two come as by drawing one after the other, by hand calculation."""
    distribution = ByFrequency([1.0, 2.0, 3.0])
    nothing = torch.empty(0, dtype=torch.int64)
    shares = {(0, 1): 1 / 6 * 2 / 5 + 2 / 6 * 1 / 4, (0, 2): 1 / 6 * 3 / 5 + 3 / 6 * 1 / 3}
    shares[1, 2] = 1 - sum(shares.values())
    torch.manual_seed(0)
    samples = [distribution._continue_by_race(2, nothing, 0) if raced else distribution.sample(2) for _ in range(4000)]
    pairs = [tuple(sample.classes.sort().values.tolist()) for sample in samples]
    for pair, share in shares.items():
        assert pairs.count(pair) / 4000 == pytest.approx(share, abs=0.025)
    draws = 1 + 1 / 6 * 6 / 5 + 2 / 6 * 6 / 4 + 3 / 6 * 6 / 3
    assert sum(sample.draws for sample in samples) / 4000 == pytest.approx(draws, abs=0.1)


def test_a_race_goes_on_from_what_was_seen():
    distribution, seen = ByFrequency([1.0, 2.0, 3.0]), torch.tensor([2])
    torch.manual_seed(0)
    samples = [distribution._continue_by_race(2, seen, 5) for _ in range(2000)]
    assert all(2 in sample.classes for sample in samples)
    assert sum(1 in sample.classes for sample in samples) / 2000 == pytest.approx(2 / 3, abs=0.04)
    assert sum(sample.draws for sample in samples) / 2000 == pytest.approx(5 + 2, abs=0.15)  # each hits in one of two


def test_a_seed_gives_the_same_classes():
    distribution = LogUniform(100_000)
    torch.manual_seed(3)
    first = distribution.sample(50)
    torch.manual_seed(3)
    assert distribution.sample(50).classes.equal(first.classes)
    assert not distribution.sample(50).classes.equal(first.classes)


def test_skewed_frequencies_do_not_stall():
    """Rejection would wait a million draws for the second class."""
    classes, _ = ByFrequency([1e12, *[1.0] * 999]).sample(10)
    assert len(classes.unique()) == 10
    assert 0 in classes


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="unknown sampling 'zipf'; use 'log_uniform', 'uniform'"):
        class_distribution("zipf", 3)
    with pytest.raises(ValueError, match="sampling holds 2 frequencies; expected 3"):
        class_distribution([1, 2], 3)
    with pytest.raises(ValueError, match="frequencies holds 0 for class 1; expected positive numbers"):
        ByFrequency([1, 0, 2])
    with pytest.raises(ValueError, match="num_classes must be at least 1, not 0"):
        Uniform(0)
