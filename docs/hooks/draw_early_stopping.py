"""Draw docs/hooks/early_stopping.png: where a network that learns noise by heart stops, and what comes back."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from cvplugins.monitors import EarlyStopping
from cvplugins.reporting.figures import new_figure, save_figure


def main() -> None:
    """Train on after the stop, to see what it saves; and draw."""
    torch.manual_seed(0)
    inputs = torch.randn(1096, 20)
    labels = (inputs[:, :3].sum(1) + 0.8 * torch.randn(1096) > 0).long()
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002)
    stopping, cross_entropy = EarlyStopping(mode="min", min_delta=0.001, patience=6), nn.CrossEntropyLoss()
    course, stopped = [], None
    for iteration in range(1, 451):
        batch = torch.randint(96, (16,))
        optimizer.zero_grad()
        cross_entropy(model(inputs[batch]), labels[batch]).backward()
        optimizer.step()
        if iteration % 10 == 0:
            with torch.no_grad():
                course.append((iteration, cross_entropy(model(inputs[96:]), labels[96:]).item()))
            if stopped is None and stopping.observe(course[-1][1], iteration).stop:
                stopped = len(course)
    figure = new_figure(7, 3.2)
    axes = figure.add_subplot(xlabel="iteration", ylabel="validation loss")
    axes.plot(*zip(*course[:stopped], strict=True), "o-", color="C0", markersize=4, label="the run")
    axes.plot(*zip(*course[stopped - 1 :], strict=True), ":", color="C0", label="without the hook")
    axes.plot(
        stopping.best_iteration, stopping.best, "*", color="C2", markersize=18, label="best: weights that come back"
    )
    axes.axvline(course[stopped - 1][0], color="C3", label="stop: 6 validations without progress")
    axes.axvspan(stopping.best_iteration, course[stopped - 1][0], color="C3", alpha=0.1)
    axes.legend(loc="upper center")
    save_figure(figure, Path(__file__).with_name("early_stopping.png"))


if __name__ == "__main__":
    main()
