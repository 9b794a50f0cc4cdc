"""A model of two layers under mmengine's Runner, for tests of hooks."""

import random

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset


class Numbers(Dataset):
    """Inputs 0 to 7, augmented by all three generators, each with the target that the model has to learn."""

    def __init__(self, count=8):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        noise = random.random() + np.random.random() + torch.rand(()).item()
        return {"inputs": torch.tensor([index + noise]), "target": torch.tensor([2.0 * index])}


class SmallModel(BaseModel):
    """Two linear layers with dropout; ``poison`` makes the loss infinite at that call."""

    def __init__(self, poison=None):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(1, 4)
        self.last = nn.Linear(4, 1)
        self.poison = poison
        self.calls = 0

    def forward(self, inputs, target, mode="tensor"):
        found = self.last(nn.functional.dropout(self.first(inputs / 8), training=self.training))
        loss = (found - target).square().mean()
        if self.calls == self.poison:
            loss = loss * torch.inf
        self.calls += 1
        return {"loss": loss} if mode == "loss" else [{"loss": loss}]


def runner(work_dir, name, *, model=None, hooks=(), dataset=None, epochs=2, loader=None, **options):
    """Return a Runner; ``name`` keeps the global instances of mmengine apart."""
    options.setdefault("optim_wrapper", {"optimizer": {"type": "SGD", "lr": 0.01}})
    options.setdefault("train_cfg", {"by_epoch": True, "max_epochs": epochs})
    return Runner(
        model=model or SmallModel(),
        work_dir=str(work_dir),
        train_dataloader={
            "dataset": dataset or Numbers(),
            "batch_size": 2,
            "num_workers": 0,
            "sampler": {"type": "DefaultSampler", "shuffle": True},
            "collate_fn": {"type": "default_collate"},
            **(loader or {}),
        },
        custom_hooks=list(hooks),
        experiment_name=name,
        **options,
    )
