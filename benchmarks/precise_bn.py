"""What does recomputing batch norm statistics cost, compared with training?

Run ``python benchmarks/precise_bn.py`` (``--device cuda`` for a GPU). ResNet-50; the candidates take turns in random
order; each line is the median over the rounds, and its ratio to a training iteration of the same batch.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable

import torch
from torchvision.models import resnet50

from cvplugins.norm import apply_norm_policy, recompute_statistics


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.manual_seed(0)
    images = torch.rand(options.batch_size, 3, options.size, options.size, device=options.device)
    model = resnet50(weights=None).to(options.device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def train() -> None:
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()

    def forward() -> None:
        with torch.no_grad():
            model(images)

    candidates: dict[str, Callable[[], object]] = {
        "training iteration": train,
        "forward without gradients": forward,
        "recomputation, one batch": lambda: recompute_statistics(model, [images], 1),
        "policy, once a run": lambda: apply_norm_policy(model, [{"to": "SyncBN", "momentum": random.random()}]),
    }
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(options.rounds + 1):
        for name, run in random.sample(list(candidates.items()), len(candidates)):
            start = time.perf_counter()
            run()
            if options.device != "cpu":
                torch.cuda.synchronize()
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    reference = statistics.median(times["training iteration"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:<26} {1e3 * median:9.2f} ms  {median / reference:6.3f} of an iteration")


if __name__ == "__main__":
    main()
