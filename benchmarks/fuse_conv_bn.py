"""How much faster is ResNet-50 with its batch norms folded into its convolutions?

Run ``python benchmarks/fuse_conv_bn.py`` (``--device cuda`` for a GPU). The models take turns in random order; each
line is the median over the rounds, its ratio to the model as it was, and how far its output is off. Beside ours runs
mmcv's ``fuse_conv_bn``, where mmcv is installed.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import time

import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from cvplugins.norm import fuse_conv_bn


def seconds(model: nn.Module, images: Tensor) -> float:
    """Return how long one forward pass takes."""
    start = time.perf_counter()
    model(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.no_grad()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    torch.manual_seed(0)
    images = torch.rand(options.batch_size, 3, options.size, options.size, device=options.device)
    model = resnet50(weights=None).to(options.device).train()
    model(torch.rand(8, 3, 64, 64, device=options.device))  # statistics that keep the values in range
    model.eval()
    models = {"as it was": model, "folded": copy.deepcopy(model)}
    start = time.perf_counter()
    report = fuse_conv_bn(models["folded"], images)
    print(f"{report}, in {time.perf_counter() - start:.2f} s")
    try:
        from mmcv.cnn import fuse_conv_bn as by_mmcv

        models["folded by mmcv"] = by_mmcv(copy.deepcopy(model))
    except ImportError:
        print("mmcv is not installed")
    times: dict[str, list[float]] = {name: [] for name in models}
    for each in models.values():
        seconds(each, images)
    for _ in range(options.rounds):
        for name, each in random.sample(list(models.items()), len(models)):
            times[name].append(seconds(each, images))
    reference = statistics.median(times["as it was"])
    for name, each in models.items():
        median = statistics.median(times[name])
        off = (each(images) - model(images)).abs().max().item()
        print(f"{name:<15} {1e3 * median:8.1f} ms  {reference / median:5.2f} times as fast  off by {off:.1e}")


if __name__ == "__main__":
    main()
