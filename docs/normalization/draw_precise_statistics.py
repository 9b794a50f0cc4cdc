"""Draw docs/normalization/precise_statistics.png: validation loss with running and with recomputed statistics."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from cvplugins.norm import recompute_statistics
from cvplugins.reporting.figures import new_figure, save_figure


def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return noise with a bright quarter, which is the class; each image has a contrast of its own."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=generator)
    found = torch.randn(count, 3, 16, 16, generator=generator)
    for image, label in zip(found, labels.tolist(), strict=True):
        image.view(3, 2, 8, 2, 8)[:, label // 2, :, label % 2] += 0.3
    return found * torch.empty(count, 1, 1, 1).uniform_(0.3, 3.0, generator=generator), labels


def block(channels: int, out: int) -> nn.Sequential:
    """Return a convolution with batch norm."""
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.BatchNorm2d(out), nn.ReLU())


def main() -> None:
    """Train with small batches and a large step, evaluate in both ways, and draw."""
    torch.manual_seed(0)
    train, valid = images(512, seed=1), images(512, seed=2)
    model = nn.Sequential(block(3, 16), block(16, 32), block(32, 32), nn.Flatten(), nn.Linear(128, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    cross_entropy = nn.CrossEntropyLoss()
    course = []
    for iteration in range(1, 201):
        batch = torch.randint(512, (2,))
        optimizer.zero_grad()
        cross_entropy(model(train[0][batch]), train[1][batch]).backward()
        optimizer.step()
        if iteration % 5 == 0:
            precise = copy.deepcopy(model)
            recompute_statistics(precise, (train[0][batch] for batch in torch.randperm(512).split(4)), 50)
            with torch.no_grad():
                losses = [cross_entropy(each.eval()(valid[0]), valid[1]).item() for each in (model, precise)]
            model.train()
            course.append((iteration, *losses))
    iterations, running, recomputed = zip(*course, strict=True)
    figure = new_figure(7, 3.2)
    axes = figure.add_subplot(xlabel="iteration", ylabel="validation loss", yscale="log")
    axes.plot(iterations, running, "o-", color="C3", markersize=3, label="running statistics")
    axes.plot(iterations, recomputed, "o-", color="C0", markersize=3, label="PreciseBN: recomputed from 50 batches")
    axes.legend()
    save_figure(figure, Path(__file__).with_name("precise_statistics.png"))


if __name__ == "__main__":
    main()
