"""Draw ``docs/hooks/GradientHealthHook.png``: a small residual network in which a layer dies at iteration 200.

Run ``python docs/hooks/draw_gradient_health.py``.
"""

import logging
import tempfile
from pathlib import Path

import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from cvplugins.openmmlab.hooks.gradient_health import GradientHealthHook


class BrightQuarter(Dataset):
    """Noise with a bright quarter, which is the class."""

    def __len__(self):
        """Return a number of images."""
        return 800

    def __getitem__(self, index):
        """Return an image and its class."""
        generator = torch.Generator().manual_seed(index)
        label = index % 4
        image = torch.randn(3, 16, 16, generator=generator)
        image.view(3, 2, 8, 2, 8)[:, label // 2, :, label % 2] += 0.5
        return {"inputs": image, "target": label}


class Network(BaseModel):
    """A stem, a residual branch and a head; an activation of the branch dies at the 200th call."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.branch = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8),
        )  # fmt: skip
        self.down = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Linear(16 * 7 * 7, 4)
        self.calls = 0

    def forward(self, inputs, target, mode):
        """Return the loss."""
        if self.calls == 200:
            nn.init.constant_(self.branch[1].bias, -100.0)
        self.calls += 1
        stem = self.stem(inputs)
        found = self.head(self.down(stem + self.branch(stem)).flatten(1))
        return {"loss": nn.functional.cross_entropy(found, target)}


def main() -> None:
    """Train and draw."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(
            model=Network(),
            work_dir=folder,
            train_dataloader={
                "dataset": BrightQuarter(),
                "batch_size": 8,
                "num_workers": 0,
                "sampler": {"type": "DefaultSampler", "shuffle": True},
                "collate_fn": {"type": "default_collate"},
            },
            optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.01, "momentum": 0.9}},
            train_cfg={"by_epoch": True, "max_epochs": 4},
            custom_hooks=[GradientHealthHook(detail_interval=5)],
            randomness={"seed": 0},
        )
        runner.logger.setLevel(logging.WARNING)
        runner.train()
        Path(runner.log_dir, "gradient_health.png").replace(Path(__file__).with_name("GradientHealthHook.png"))


if __name__ == "__main__":
    main()
