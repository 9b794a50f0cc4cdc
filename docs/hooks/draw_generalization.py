"""Draw docs/hooks/generalization.png: a network that learns 64 noisy examples by heart."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from cvplugins.monitors import Generalization
from cvplugins.reporting import draw_generalization_figure


def main() -> None:
    """Train, watch and draw."""
    torch.manual_seed(0)
    inputs = torch.randn(1064, 20)
    labels = (inputs[:, :3].sum(1) + 0.8 * torch.randn(1064) > 0).long()
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002)
    monitor, cross_entropy = Generalization(), nn.CrossEntropyLoss()
    for iteration in range(1, 601):
        batch = torch.randint(64, (16,))
        logits = model(inputs[batch])
        loss = cross_entropy(logits, labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        monitor.add(loss, (logits.argmax(1) == labels[batch]).float().mean())
        if iteration % 15 == 0:
            with torch.no_grad():
                logits = model(inputs[64:])
            accuracy = (logits.argmax(1) == labels[64:]).float().mean().item()
            monitor.observe(monitor.point(iteration, cross_entropy(logits, labels[64:]).item(), accuracy))
    draw_generalization_figure(monitor.reports, Path(__file__).with_name("generalization.png"))


if __name__ == "__main__":
    main()
