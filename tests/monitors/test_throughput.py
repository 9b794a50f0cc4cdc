"""Throughput under a clock that the test turns, and on two ranks with real waiting."""

import sys
import time

import pytest
import torch
from helpers import run_ranks

from cvplugins.monitors import Throughput
from cvplugins.monitors.throughput import gpu_utilisation, peak_memory


class Clock:
    """A clock that only the test turns."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def iterate(monitor, clock, numbers, *, data=0.1, compute=0.3, total=1000, validations=0):
    """Run iterations, and return the reports."""
    reports = []
    for number in numbers:
        clock.now += data
        monitor.batch_arrived()
        clock.now += compute
        reports.append(monitor.step_done(number, 4, total - number, validations))
    return [report for report in reports if report is not None]


def test_counts_images_and_tells_waiting_from_computing(clock):
    monitor = Throughput(interval=10, clock=clock)
    monitor.start()
    (report,) = iterate(monitor, clock, range(1, 11))
    assert report.images_per_second == pytest.approx(4 / 0.4)
    assert (report.data_seconds, report.compute_seconds) == pytest.approx((0.1, 0.3))
    assert report.eta_seconds == pytest.approx(990 * 0.4)
    assert report.slowest_rank is None
    scalars = report.scalars()
    assert scalars["throughput/data_share"] == pytest.approx(0.25)
    assert "throughput/slowest_rank" not in scalars
    assert "10 images/s; 0.4 s an iteration, 25% of it waiting for data" in str(report)


def test_eta_forgets_slow_first_iterations_and_rare_pauses(clock):
    """The oracle is what then happens. A mean since the start, as mmengine's, is off by a fifth."""
    monitor = Throughput(interval=50, clock=clock)
    monitor.start()
    began = clock.now
    iterate(monitor, clock, [1], compute=30.0)  # kernels are chosen, workers start
    (report,) = iterate(monitor, clock, range(2, 51))
    mean = (clock.now - began) / 50 * 950
    left = 950 * 0.4
    assert report.eta_seconds == pytest.approx(left)
    assert mean > 2 * left


def test_eta_follows_a_change_of_speed(clock):
    monitor = Throughput(interval=100, window=50, clock=clock)
    monitor.start()
    iterate(monitor, clock, range(1, 101))
    (report,) = iterate(monitor, clock, range(101, 201), compute=0.9)
    assert report.eta_seconds == pytest.approx(800 * 1.0)


def test_eta_includes_validations_and_they_are_no_training_time(clock):
    """20 iterations of 0.4 s, validations of 7 s after every 5: the oracle is the clock at the end."""
    monitor = Throughput(interval=5, clock=clock)
    monitor.start()
    etas = []
    for number in range(1, 21):
        (*report,) = iterate(monitor, clock, [number], total=20, validations=4 - (number - 1) // 5)
        etas += [(clock.now + each.eta_seconds, each) for each in report]
        if number % 5 == 0:
            monitor.validation_starts()
            clock.now += 7
            monitor.validation_done()
    ends, reports = zip(*etas, strict=True)
    assert reports[0].eta_knows_validation is False
    assert "not timed yet" in str(reports[0])
    assert list(ends[1:]) == pytest.approx([clock.now] * 3)
    for report in reports:
        assert report.images_per_second == pytest.approx(10)
        assert report.data_seconds == pytest.approx(0.1)


def test_a_resumed_run_knows_the_validations(clock):
    monitor = Throughput(interval=1, clock=clock)
    monitor.validation_starts()
    clock.now += 7
    monitor.validation_done()
    resumed = Throughput(interval=1, clock=clock)
    resumed.load_state_dict(monitor.state_dict())
    resumed.start()
    (report,) = iterate(resumed, clock, [500], validations=2)
    assert report.eta_seconds == pytest.approx(500 * 0.4 + 14)


def test_reports_only_at_multiples_and_never_without_an_iteration(clock):
    monitor = Throughput(interval=4, clock=clock)
    monitor.start()
    assert [report.iteration for report in iterate(monitor, clock, range(3, 13))] == [4, 8, 12]
    assert Throughput(interval=1, clock=clock).step_done(1, 1, 1) is None  # never started


def test_gpu_utilisation_without_a_gpu_or_nvml(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_utilisation() is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "utilization", lambda: 40)
    assert gpu_utilisation() == 0.4

    def missing():
        raise ModuleNotFoundError("pynvml does not seem to be installed")

    monkeypatch.setattr(torch.cuda, "utilization", missing)
    assert gpu_utilisation() is None


def _slow_rank(slow, where):
    import torch.distributed as dist

    monitor = Throughput(interval=5)
    monitor.start()
    reports = []
    for number in range(1, 11):
        ill = dist.get_rank() == slow
        time.sleep(0.03 if ill and where == "data" else 0.002)
        monitor.batch_arrived()
        time.sleep(0.03 if ill and where == "forward" else 0.002)
        monitor.forward_done()
        dist.all_reduce(torch.ones(1))  # the backward pass, where the others wait
        reports.append(monitor.step_done(number, 2 + dist.get_rank(), 100 - number))
    return [report for report in reports if report is not None]


@pytest.mark.distributed
@pytest.mark.parametrize(("slow", "where"), [(1, "data"), (0, "forward")])
def test_two_ranks_name_the_slow_one(slow, where):
    first, second = run_ranks(_slow_rank, 2, slow, where, timeout=30)
    assert first == second  # the same on both
    for report in first:
        assert report.slowest_rank == slow
        assert report.slowest_excess > 1
        assert 25 < report.images_per_second < 5 / 0.03
    assert f"slowest rank {slow} (+" in str(first[0])


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: /proc")
def test_peak_memory_is_the_systems():
    """The oracle is the kernel's high-water mark."""
    from pathlib import Path

    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    cpu, gpu = peak_memory()
    assert (gpu is None) == (not torch.cuda.is_available())
    assert cpu == pytest.approx(int(line.split()[1]) / 1024, rel=0.1)


@pytest.mark.parametrize("name", ["interval", "window"])
def test_wrong_options_are_named(name):
    with pytest.raises(ValueError, match=f"{name} is 0; it must be at least 1"):
        Throughput(**{name: 0})
