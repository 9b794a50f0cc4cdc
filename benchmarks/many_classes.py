"""What do sampled and adaptive softmax save, when there are very many classes?

Run ``python benchmarks/many_classes.py`` (``--device cuda`` for a GPU). Each line is a step of training from 256
features a row: forward, backward and plain SGD; the candidates take turns, and the median over the rounds counts.
Memory is the peak above parameters and inputs, gradients included. Labels are Zipf-distributed.

``OMP_NUM_THREADS=1 python benchmarks/many_classes.py`` on a shared machine with two cores gave::

    256 rows, cpu, 1 threads, torch 2.12.0+cu130

                                             classes       ms  times  peak MB  times
    nn.Linear and cross_entropy               10,000     91.4    1.0     30.7    1.0
    SampledSoftmaxLoss(1024)                  10,000     17.5    5.2      4.7    6.5
    SampledSoftmaxLoss(1024, sparse=False)    10,000     16.3    5.6     11.6    2.6
    AdaptiveSoftmaxLoss([1000, 5000])         10,000      9.7    9.4      4.3    7.1
    nn.Linear and cross_entropy               30,000    231.9    1.0     92.2    1.0
    SampledSoftmaxLoss(1024)                  30,000     12.8   18.2      4.7   19.4
    SampledSoftmaxLoss(1024, sparse=False)    30,000     30.0    7.7     32.2    2.9
    AdaptiveSoftmaxLoss([1000, 5000])         30,000     23.5    9.9     14.8    6.2
    nn.Linear and cross_entropy              100,000    857.8    1.0    307.2    1.0
    SampledSoftmaxLoss(1024)                 100,000     19.5   43.9      4.7   64.7
    SampledSoftmaxLoss(1024, sparse=False)   100,000    100.9    8.5    104.1    3.0
    AdaptiveSoftmaxLoss([1000, 5000])        100,000    100.2    8.6     78.0    3.9
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from cvplugins.losses import AdaptiveSoftmaxLoss, LogUniform, SampledSoftmaxLoss

FEATURES = 256


class FullSoftmax(nn.Module):
    """What one writes without a thought: a linear layer and cross-entropy."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, classes)

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss."""
        return F.cross_entropy(self.linear(features), target)


CANDIDATES: dict[str, Callable[[int], nn.Module]] = {
    "nn.Linear and cross_entropy": FullSoftmax,
    "SampledSoftmaxLoss(1024)": lambda classes: SampledSoftmaxLoss(FEATURES, classes, 1024),
    "SampledSoftmaxLoss(1024, sparse=False)": lambda classes: SampledSoftmaxLoss(FEATURES, classes, 1024, sparse=False),
    "AdaptiveSoftmaxLoss([1000, 5000])": lambda classes: AdaptiveSoftmaxLoss(FEATURES, classes, [1000, 5000]),
}


class Trained:
    """A classifier with its optimizer and a batch."""

    def __init__(self, make: Callable[[int], nn.Module], classes: int, rows: int, device: str) -> None:
        self.loss = make(classes).to(device)
        self.optimizer = torch.optim.SGD(self.loss.parameters(), lr=0.1)
        self.features = torch.randn(rows, FEATURES, device=device)
        self.target = LogUniform(classes).quantile(torch.rand(rows, dtype=torch.float64)).to(device)
        self.device = device

    def step(self) -> None:
        """Train once, and drop the gradients."""
        self.loss(self.features, self.target).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.device != "cpu":
            torch.cuda.synchronize()

    def milliseconds(self) -> float:
        """Return the duration of a step."""
        start = time.perf_counter()
        self.step()
        return (time.perf_counter() - start) * 1000

    def peak_megabytes(self) -> float:
        """Return how much a step takes at most, above what is there before."""
        if self.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self.step()
            return (torch.cuda.max_memory_allocated() - before) / 1e6
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            self.step()
        now = peak = 0
        for event in profiled.profiler.kineto_results.events():
            if event.name() == "[memory]":
                now += event.nbytes()
                peak = max(peak, now)
        return peak / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--rows", type=int, default=256, help="rows of a batch")
    parser.add_argument("--classes", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    args = parser.parse_args()
    print(f"{args.rows} rows, {args.device}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print(f"{'':38}  {'classes':>8} {'ms':>8} {'times':>6} {'peak MB':>8} {'times':>6}")
    for classes in args.classes:
        torch.manual_seed(0)
        trained = {name: Trained(make, classes, args.rows, args.device) for name, make in CANDIDATES.items()}
        times: dict[str, list[float]] = {name: [] for name in trained}
        for _ in range(args.rounds + 2):
            for name, each in trained.items():
                times[name].append(each.milliseconds())
        medians = {name: statistics.median(values[2:]) for name, values in times.items()}  # two rounds to warm up
        peaks = {name: each.peak_megabytes() for name, each in trained.items()}
        full = next(iter(trained))
        for name in trained:
            less = f"{medians[full] / medians[name]:6.1f} {peaks[name]:8.1f} {peaks[full] / peaks[name]:6.1f}"
            print(f"{name:38}  {classes:>8,} {medians[name]:8.1f} {less}")


if __name__ == "__main__":
    main()
