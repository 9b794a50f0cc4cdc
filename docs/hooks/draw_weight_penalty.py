"""Draw docs/hooks/weight_penalty.png: the weights of a regression under L1, as gradient and as proximal step."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from cvplugins.monitors import WeightShrinkage
from cvplugins.reporting.figures import new_figure, save_figure

NEEDED = 5


def course(form: str) -> tuple[Tensor, float]:
    """Return the weights after each step, and the share of zeros in the end."""
    torch.manual_seed(0)
    inputs = torch.randn(512, 40)
    targets = inputs[:, :NEEDED] @ torch.linspace(0.4, 1.2, NEEDED) + 0.3 * torch.randn(512)
    model = nn.Linear(40, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    penalty, weights = WeightShrinkage(model, l1=0.2), []
    for _ in range(200):
        batch = torch.randint(512, (128,))
        optimizer.zero_grad()
        (model(inputs[batch]).squeeze(1) - targets[batch]).square().mean().backward()
        if form == "gradient":
            penalty.add_gradient(optimizer)
        optimizer.step()
        if form == "proximal":
            penalty.shrink(optimizer)
        weights.append(model.weight.detach()[0].clone())
    return torch.stack(weights), penalty.report().sparsity


def main() -> None:
    """Train twice and draw."""
    figure = new_figure(7, 3)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, form in zip(panels, ("gradient", "proximal"), strict=True):
        weights, sparsity = course(form)
        axes.plot(weights[:, NEEDED:].abs().clamp(min=1e-6), color="0.7", linewidth=0.5)
        axes.plot(weights[:, :NEEDED].abs().clamp(min=1e-6), color="C0")
        axes.set(title=f"{form}: {sparsity:.0%} of the weights are 0", xlabel="iteration", yscale="log", ylim=(1e-5, 3))
        axes.plot([], color="C0", label="inputs that matter")
        axes.plot([], color="0.7", label="the other 35")
    panels[0].set_ylabel("absolute weight")
    panels[0].legend(loc="lower left")
    save_figure(figure, Path(__file__).with_name("weight_penalty.png"))


if __name__ == "__main__":
    main()
