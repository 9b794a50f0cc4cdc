"""Over- and underfitting. Oracles: networks that really do, and courses whose verdict is known."""

import math
import random

import pytest
import torch
from helpers import run_ranks
from torch import nn

from cvplugins.monitors import Generalization, GeneralizationPoint
from cvplugins.monitors.trend import falls, mann_kendall, noise


def train(make_data, hidden, evaluations=60, every=10, lr=0.01, **options):
    """Train a classifier and return the verdict after each evaluation."""
    torch.manual_seed(0)
    (x, y), (val_x, val_y) = make_data(), make_data()
    layers = [nn.Linear(20, hidden), nn.ReLU(), nn.Linear(hidden, 2)] if hidden else [nn.Linear(20, 2)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    monitor, loss_of = Generalization(**options), nn.CrossEntropyLoss()
    verdicts = []
    for step in range(1, evaluations * every + 1):
        batch = torch.randint(len(x), (16,))
        loss = loss_of(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        monitor.add(loss)
        if step % every == 0:
            with torch.no_grad():
                val = loss_of(model(val_x), val_y).item()
            verdicts.append(monitor.observe(monitor.point(step, val)).verdict)
    return verdicts


def random_labels(count=48):
    return torch.randn(count, 20), torch.randint(2, (count,))


def learnable(count=2000):
    x = torch.randn(count, 20)
    return x, (x[:, :5].sum(1) > 0).long()


def exclusive_or(count=2000):
    x = torch.randn(count, 20)
    return x, (x[:, 0] * x[:, 1] > 0).long()


def test_a_set_learnt_by_heart_is_overfitted():
    verdicts = train(random_labels, hidden=64)
    assert verdicts[-1] == "overfitting"
    assert verdicts.index("overfitting") < 20


def test_a_model_that_is_too_small_underfits():
    verdicts = train(exclusive_or, hidden=0)  # no line separates exclusive or
    assert verdicts[-1] == "underfitting"
    assert "overfitting" not in verdicts


def test_a_healthy_run_raises_no_alarm_in_500_iterations():
    for seed_hidden in (8, 16, 32):
        verdicts = train(learnable, hidden=seed_hidden, evaluations=50)
        assert set(verdicts) <= {"too early", "learning", "converged"}
        assert "learning" in verdicts


def course(val, train=lambda n: math.exp(-n / 30), metric=None, count=60, spread=0.0, **options):
    noise = random.Random(0)
    monitor = Generalization(**options)
    monitor.add(1.0)
    for n in range(count):
        values = [f(n) * (1 + spread * noise.gauss(0, 1)) if f else None for f in (train, val, metric)]
        report = monitor.observe(GeneralizationPoint(n, values[0], values[1], None, values[2]))
    return report


def rising(n):
    return 0.5 + 0.0005 * (n - 30) ** 2


@pytest.mark.parametrize("spread", [0.0, 0.05])
def test_verdicts_on_known_courses(spread):
    assert course(rising, spread=spread).verdict == "overfitting"
    assert course(rising, metric=lambda n: 1 - math.exp(-n / 40), spread=spread / 5).verdict == "overconfident"
    assert course(rising, metric=lambda n: 0.5, spread=spread).verdict == "overfitting"
    assert course(None, metric=lambda n: 1 - rising(n) / 2, spread=spread).verdict == "overfitting"
    assert course(None, metric=rising, spread=spread, metric_mode="min").verdict == "overfitting"
    assert course(lambda n: math.exp(-n / 30), spread=spread).verdict == "learning"
    assert course(lambda n: 0.3, train=lambda n: 0.3, spread=spread).verdict == "converged"
    assert course(lambda n: 0.8, train=lambda n: 0.8, spread=spread).verdict == "underfitting"
    assert course(lambda n: 0.8, train=lambda n: 0.8, spread=spread, fitted_loss=0.9).verdict == "converged"
    # Both rise together: a change of the learning rate, not of the gap
    assert course(rising, train=rising, spread=spread).verdict != "overfitting"


def test_the_evidence_names_the_numbers():
    report = course(rising, count=60)
    assert report.evidence.startswith("val_loss 0.8645 is worse than its best of 0.5005 at iteration 31")
    assert report.gap == pytest.approx(rising(59) - math.exp(-59 / 30))
    assert course(lambda n: math.nan).evidence == "val_loss is nan"
    assert course(rising, count=5).evidence == "5 of the 8 evaluations that a trend needs"


def test_a_skipped_iteration_does_not_count():
    """One NaN among finite losses, which a guard answers; with nothing else, the training is not finite."""
    monitor = Generalization()
    for loss in (torch.tensor(4.0), torch.tensor(math.nan), 2.0):
        monitor.add(loss, loss)
    again = Generalization()
    again.load_state_dict(monitor.state_dict())
    for each in (monitor, again):
        point = each.point(3, val_loss=1.0)
        assert (point.train_loss, point.train_metric) == (3.0, 3.0)
        assert each._fitted() == 1.5
    monitor.observe(point)
    monitor.add(math.nan)
    assert monitor.observe(monitor.point(4, val_loss=1.0)).verdict == "not finite"


@pytest.mark.parametrize("spread", [0.02, 0.2])
def test_noise_alone_raises_no_alarm(spread):
    """A validation loss that stays where it is while the training loss falls."""
    random_numbers = random.Random(1)
    alarms = 0
    for _ in range(10):
        monitor = Generalization()
        for n in range(50):
            val = 1 + spread * random_numbers.gauss(0, 1)
            alarms += monitor.observe(GeneralizationPoint(n, math.exp(-n / 50), val)).verdict == "overfitting"
    assert alarms <= 3  # of 500


def test_trend_is_exact():
    """Oracle: scipy's test of Kendall's tau, which against distinct ranks is the same."""
    from scipy.stats import kendalltau

    numbers = random.Random(0)
    for count in range(2, 12):
        values = [numbers.random() for _ in range(count)]
        expected = kendalltau(range(count), values, alternative="less", method="exact").pvalue
        assert mann_kendall(values) == pytest.approx(expected)
    assert mann_kendall([1.0] * 8) == pytest.approx(1.0)
    assert not falls([1.0])
    draws = [n / 10 + 0.3 * numbers.gauss(0, 1) for n in range(5000)]
    assert noise(draws) == pytest.approx(0.3, rel=0.1)


def test_state_resumes_within_an_interval():
    monitor, again = Generalization(window=6), Generalization(window=6)
    for n in range(30):
        for each in (monitor, again):
            each.add(torch.tensor(0.9**n), torch.tensor(0.5))
        if n == 16:
            resumed = Generalization(window=6)
            resumed.load_state_dict(again.state_dict())
            again = resumed
        if n % 3 == 2:
            points = [each.point(n, rising(n)) for each in (monitor, again)]
            assert points[0] == points[1]
            assert monitor.observe(points[0]) == again.observe(points[1])


def uneven_ranks():
    rank = torch.distributed.get_rank()
    monitor = Generalization()
    for loss in ([1.0, 2.0, 3.0], [6.0])[rank]:
        monitor.add(torch.tensor(loss))
    return monitor.observe(monitor.point(4, [math.nan, 1.0][rank]))


@pytest.mark.distributed
def test_ranks_agree():
    first, second = run_ranks(uneven_ranks, 2, timeout=60)
    assert first.point.train_loss == second.point.train_loss == 3.0
    assert first.verdict == second.verdict == "not finite"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(window=5), "window is 5"),
        (dict(min_change=-1), "min_change and noise_factor"),
        (dict(metric_mode="less"), "metric_mode is 'less'"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        Generalization(**options)
