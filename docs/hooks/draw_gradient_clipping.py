"""Draw docs/hooks/gradient_clipping.png: a regression in which one label of 500 is wrong by far."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from cvplugins.monitors.gradient_clipping import GradientClipping
from cvplugins.reporting.figures import new_figure, save_figure

LIMIT = 8.0


def course(clip: bool) -> tuple[list[float], list[float], float]:
    """Return the loss on clean data and the norm before clipping after each step, and the share of clipped steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    clipping = GradientClipping.of(max_norm=LIMIT if clip else 1e9)
    clean = torch.randn(500, 10)
    losses, norms, clipped = [], [], 0.0
    for _ in range(400):
        inputs = torch.randn(16, 10)
        targets = inputs[:, :3].prod(1) + inputs.sum(1)
        targets = targets * torch.where(torch.rand(16) < 1 / 500, 40.0, 1.0)
        optimizer.zero_grad()
        (model(inputs)[:, 0] - targets).square().mean().backward()
        clipping.clip_(list(model.named_parameters()))
        optimizer.step()
        report = clipping.report()
        norms.append(report.norm["*"])
        clipped += report.share["*"]
        with torch.no_grad():
            losses.append((model(clean)[:, 0] - clean[:, :3].prod(1) - clean.sum(1)).square().mean().item())
    return losses, norms, clipped / len(norms)


def main() -> None:
    """Train twice and draw."""
    figure = new_figure(7, 4)
    above, below = figure.subplots(2, 1, sharex=True)
    losses, norms, share = course(clip=True)
    above.plot(norms, color="C0", linewidth=0.8)
    above.axhline(LIMIT, color="0.3", linestyle=":")
    above.set(
        ylabel="norm before clipping", yscale="log", title=f"max_norm={LIMIT:g}: {share:.0%} of the steps clipped"
    )
    below.plot(course(clip=False)[0], color="C3", label="without clipping")
    below.plot(losses, color="C0", label="with clipping")
    below.set(ylabel="validation loss", yscale="log", xlabel="iteration")
    below.legend()
    save_figure(figure, Path(__file__).with_name("gradient_clipping.png"))


if __name__ == "__main__":
    main()
