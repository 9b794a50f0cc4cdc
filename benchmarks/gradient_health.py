"""What does watching the gradients of ResNet-50 cost, compared with reading them once?

Run ``python benchmarks/gradient_health.py`` (``--device cuda`` for a GPU). The candidates take turns; each
line is the median over the rounds, and its ratio to one ``torch._foreach_norm`` read.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cvplugins.monitors import GradientHealth


def resnet50_parameters(device: str) -> list[tuple[str, nn.Parameter]]:
    """Return the 161 named parameters of ResNet-50, 25.6 million values, with gradients."""
    shapes: list[tuple[str, tuple[int, ...]]] = [("conv1.weight", (64, 3, 7, 7)), *_batch_norm("bn1", 64)]
    inputs = 64
    for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], start=1):
        for block in range(blocks):
            outputs = 4 * width
            convolutions = [(width, inputs, 1, 1), (width, width, 3, 3), (outputs, width, 1, 1)]
            if block == 0:
                convolutions.append((outputs, inputs, 1, 1))
            for number, shape in enumerate(convolutions, start=1):
                name = f"layer{stage}.{block}"
                shapes += [(f"{name}.conv{number}.weight", shape), *_batch_norm(f"{name}.bn{number}", shape[0])]
            inputs = outputs
    shapes += [("fc.weight", (1000, 2048)), ("fc.bias", (1000,))]
    parameters = []
    for name, shape in shapes:
        parameter = nn.Parameter(torch.empty(shape, device=device))
        parameter.grad = torch.randn(shape, device=device)
        parameters.append((name, parameter))
    return parameters


def _batch_norm(name: str, channels: int) -> list[tuple[str, tuple[int, ...]]]:
    return [(f"{name}.weight", (channels,)), (f"{name}.bias", (channels,))]


def one_by_one(gradients: list[Tensor]) -> None:
    """Check each gradient as is often done: its norm, any NaN, any infinity, each read at once."""
    for gradient in gradients:
        gradient.norm().item()
        gradient.isnan().any().item()
        gradient.isinf().any().item()


def milliseconds(call: Callable[[], object]) -> float:
    """Return the duration of a call that ends with a read from the device."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    parameters = resnet50_parameters(args.device)
    gradients = [parameter.grad for _, parameter in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    monitor = GradientHealth()
    candidates: dict[str, Callable[[], object]] = {
        "sum of one flat tensor (memory limit)": lambda: flat.sum().item(),
        "torch._foreach_norm and one transfer": lambda: torch.stack(torch._foreach_norm(gradients)).tolist(),
        "GradientHealth.observe": lambda: monitor.observe(parameters, 0),
        "norm, isnan, isinf of each": lambda: one_by_one(gradients),
    }
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(args.rounds + 3):
        for name, call in candidates.items():
            times[name].append(milliseconds(call))
    medians = {name: statistics.median(values[3:]) for name, values in times.items()}  # three rounds to warm up
    print(f"{len(gradients)} gradients, {flat.numel():,} values, {args.device}, {torch.get_num_threads()} threads")
    for name, median in medians.items():
        print(f"{name:40} {median:8.2f} ms {median / medians['torch._foreach_norm and one transfer']:7.2f}")


if __name__ == "__main__":
    main()
