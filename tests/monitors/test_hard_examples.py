"""Hard examples: data sets whose hard images are known, and data sets without any."""

import copy
import math

import numpy as np
import pytest
import torch
from helpers import run_ranks
from torch.overrides import TorchFunctionMode

from cvplugins.distributed import gather_objects, rank
from cvplugins.monitors import HardExamples, limited_ratio, mix_in

SIZE, HARD, FEW = 600, 12, 20


def true_losses(times=6.0, spread=0.3, seed=0):
    losses = np.exp(np.random.default_rng(seed).normal(0, spread, SIZE))
    losses[:HARD] *= times
    return losses


def train(monitor, losses, batch, epochs, noise=0.3, ratio=0.25, start=0, pool=(), seed=1):
    """Observe what a training would, while the loss falls to a sixth; return the pool of each epoch and the draws."""
    pools, draws = [], []
    for epoch in range(start, start + epochs):
        generator = np.random.default_rng((seed, epoch))
        share = limited_ratio(ratio, 10, len(pool), SIZE)
        drawn = list(mix_in(generator.permutation(SIZE).tolist(), pool, share, (seed, epoch)))
        assert len(drawn) == SIZE
        for begin in range(0, SIZE, batch):
            images = drawn[begin : begin + batch]
            level = 1 + 5 * math.exp(-epoch - begin / SIZE)
            loss = level * np.mean(losses[images] * np.exp(generator.normal(0, noise, len(images))))
            monitor.observe(images, torch.tensor(loss))
        pool = monitor.refresh().pool
        pools.append(pool)
        draws.append(drawn)
    return pools, draws


@pytest.mark.parametrize(("batch", "epochs", "found"), [(1, 4, 11), (2, 6, 11), (8, 12, 9)])
def test_finds_the_hard_images_and_draws_them_at_the_ratio(batch, epochs, found):
    pools, draws = train(HardExamples(SIZE, capacity=HARD), true_losses(), batch, epochs + 1)
    pool = set(pools[-2])
    assert sum(index < HARD for index in pool) >= found
    # Ten repeats of each, and the draws of the ordinary order that were not replaced.
    repeats = round(10 * len(pool))
    drawn = sum(index in pool for index in draws[-1])
    assert repeats - 1 <= drawn <= repeats + 1 + len(pool)
    assert limited_ratio(0.25, 10, len(pool), SIZE) == pytest.approx(repeats / SIZE)


def test_surprise_tells_more_than_an_average_of_batch_losses():
    """A moving average of the same rate is what one would try first."""
    losses, monitor, rate = true_losses(), HardExamples(SIZE, capacity=HARD, min_hardness=0), 0.5
    _, draws = train(monitor, losses, batch=8, epochs=12, ratio=0)
    average = np.ones(SIZE)
    for epoch, drawn in enumerate(draws):
        generator = np.random.default_rng((1, epoch))
        generator.permutation(SIZE)
        for begin in range(0, SIZE, 8):
            images = drawn[begin : begin + 8]
            loss = np.mean(losses[images] * np.exp(generator.normal(0, 0.3, 8)))
            average[images] += rate * (loss - average[images])
    by_average = sum(index < HARD for index in np.argsort(-average)[:HARD])
    by_surprise = sum(index < HARD for index in monitor.refresh().pool)
    assert by_surprise >= HARD - 2
    assert by_average <= by_surprise - 2


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_uniform_data_is_drawn_uniformly(batch):
    """A healthy data set, noisy losses, over 500 iterations: (almost) nothing is hard."""
    losses = np.ones(SIZE)
    pools, draws = train(HardExamples(SIZE), losses, batch, epochs=10)
    assert max(len(pool) for pool in pools) <= SIZE * 0.01
    counts = np.bincount(np.concatenate(draws), minlength=SIZE)
    moved = np.abs(counts - 10).sum() / 2 / counts.sum()
    assert moved < 0.05


def test_hardness_is_that_of_the_losses_without_noise():
    """Oracle: the losses themselves in multiples of their median, once the batches have told them apart."""
    losses = true_losses(spread=0.1)
    monitor = HardExamples(SIZE, capacity=HARD, rate=1.0)
    train(monitor, losses, batch=2, epochs=40, noise=0.0, ratio=0)
    report = monitor.refresh()
    assert set(report.pool) == set(range(HARD))
    expected = losses[list(report.pool)] / np.median(losses)
    np.testing.assert_allclose(report.hardness, expected, rtol=0.25)
    assert report.seen == SIZE


def test_an_image_seen_early_is_not_hard_for_it():
    monitor = HardExamples(100, min_hardness=1.5)
    for step in range(100):
        monitor.observe([step], 10 * math.exp(-step / 30) + 0.1)
    assert monitor.refresh().pool == ()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_losses_that_are_not_finite_teach_nothing(value):
    monitor, other = HardExamples(4), HardExamples(4)
    for index in range(4):
        monitor.observe([index], 1.0)
        other.observe([index], 1.0)
        monitor.observe([index], value)
    assert monitor.refresh() == other.refresh()


def test_killed_and_resumed_equals_straight():
    losses = true_losses()
    straight, _ = train(HardExamples(SIZE, capacity=FEW), losses, 4, epochs=6)
    killed = HardExamples(SIZE, capacity=FEW)
    first, _ = train(killed, losses, 4, epochs=3)
    state = copy.deepcopy(killed.state_dict())
    resumed = HardExamples(SIZE, capacity=FEW)
    resumed.load_state_dict(state)
    second, _ = train(resumed, losses, 4, epochs=3, start=3, pool=first[-1])
    assert first + second == straight
    assert straight[-1]


def test_state_holds_what_was_observed_since_the_last_pool():
    monitor, resumed = HardExamples(3, min_hardness=0), HardExamples(3, min_hardness=0)
    for index, loss in enumerate([1.0, 2.0, 3.0]):
        monitor.observe([index], loss)
    resumed.load_state_dict(monitor.state_dict())
    assert resumed.refresh() == monitor.refresh()
    with pytest.raises(ValueError, match="the state is of 3 images, the data set has 4"):
        HardExamples(4).load_state_dict(monitor.state_dict())


def test_state_opens_without_running_code(tmp_path):
    monitor = HardExamples(3)
    monitor.observe([0], 1.0)
    torch.save(monitor.state_dict(), tmp_path / "state.pth")
    assert torch.load(tmp_path / "state.pth", weights_only=True)["observations"] == 1


def test_reads_the_device_once_a_refresh():
    class Reads(TorchFunctionMode):
        seen = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.seen += getattr(func, "__name__", "") in ("tolist", "item", "numpy", "cpu", "__float__", "__bool__")
            return func(*args, **(kwargs or {}))

    monitor = HardExamples(8)
    with Reads() as reads:
        for index in range(8):
            monitor.observe([index], torch.tensor(1.0))
        assert reads.seen == 0
        monitor.refresh()
    assert reads.seen == 1


def observe_on_ranks(epochs):
    """Both ranks see half of the images; only rank 1's are hard, and it also sees a NaN; the last one is on both."""
    monitor, pools = HardExamples(10, capacity=3), []
    for _ in range(epochs):
        for index in range(rank(), 10, 2):
            monitor.observe([index], 6.0 if index in (3, 7) else 1.0)
        monitor.observe([9], 1.0)
        if rank() == 1:
            monitor.observe([5], math.nan)
        pools.append(monitor.refresh())
    return pools, monitor.state_dict()["hardness"], gather_objects(monitor.refresh().pool)


@pytest.mark.distributed
def test_ranks_agree():
    (first, hardness, _), (second, other, pools) = run_ranks(observe_on_ranks, 2, 8, timeout=60)
    assert first == second
    assert set(first[-1].pool) == {3, 7}
    assert first[-1].seen == 10
    assert torch.equal(hardness, other)
    assert pools[0] == pools[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size is 0; it must be at least 1"),
        ({"capacity": 0}, "capacity is 0; it must be at least 1"),
        ({"min_hardness": -1}, "min_hardness is -1; it must be at least 0"),
        ({"min_hardness": math.nan}, "min_hardness is nan"),
        ({"rate": 0}, "rate is 0; it must be above 0 and at most 1"),
        ({"rate": 1.5}, "rate is 1.5"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        HardExamples(**{"size": 4, **options})
