"""A trainer of Detectron2 with a tiny model, which resumes, and whose every number depends on all before it."""

from __future__ import annotations

from pathlib import Path

import torch
from helpers import TORCH
from torch import nn

AMP = (False, True) if TORCH >= (2, 3) else (False,)  # which has no GradScaler for the CPU


class Net(nn.Module):
    """Losses in training mode, as Detectron2's models; scores otherwise."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, batch):
        features = self.backbone(batch["x"])
        logits = self.head(features)
        if not self.training:
            return logits
        return {
            "loss_cls": nn.functional.cross_entropy(logits, batch["y"]),
            "loss_size": 0.1 * features.square().mean(),
        }


class Batches:
    """One batch an iteration, the same whenever it is asked for; ``change`` may spoil one."""

    def __init__(self, start=0, change=None, seed=0):
        self.start, self.change, self.seed = start, change, seed

    def __iter__(self):
        iteration = self.start
        while True:
            generator = torch.Generator().manual_seed(1000 * self.seed + iteration)
            batch = {"x": torch.randn(8, 3, generator=generator), "y": torch.arange(8) % 2, "file_name": f"{iteration}"}
            yield self.change(iteration, batch) if self.change else batch
            iteration += 1


def train(
    folder,
    hooks,
    iterations=8,
    resume=False,
    evaluate=None,
    eval_period=2,
    checkpoint_period=2,
    change=None,
    amp=False,
    optimizer=None,
    others=(),
    seed=0,
    model=None,
    data=None,
    kind=None,
):
    """Train with a SimpleTrainer (or AMPTrainer, or a ``kind``) and Detectron2's hooks, and return the trainer.

    ``evaluate(trainer)`` returns the results of an evaluation; the loss of a fixed batch if None.
    """
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.engine import AMPTrainer, SimpleTrainer
    from detectron2.engine.hooks import EvalHook, LRScheduler, PeriodicCheckpointer
    from detectron2.solver import LRMultiplier
    from detectron2.utils import comm
    from fvcore.common.param_scheduler import CosineParamScheduler

    from cvplugins.detectron2 import insert_hooks

    model = Net() if model is None else model
    Path(folder).mkdir(parents=True, exist_ok=True)
    optimizer = optimizer(model) if optimizer else torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    wrapped = nn.parallel.DistributedDataParallel(model) if comm.get_world_size() > 1 else model
    data = Batches(change=change, seed=seed) if data is None else data
    if amp:
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        trainer = AMPTrainer(wrapped, data, optimizer, grad_scaler=scaler)
    else:
        trainer = (kind or SimpleTrainer)(wrapped, data, optimizer)
    trainer.scheduler = LRMultiplier(optimizer, CosineParamScheduler(1.0, 0.1), max_iter=100)
    checkpointer = DetectionCheckpointer(model, str(folder), trainer=trainer)

    def results():
        model.eval()
        with torch.no_grad():
            found = (evaluate or score)(trainer)
        model.train()
        return found if comm.is_main_process() else None

    theirs = [LRScheduler(), *others]
    if comm.is_main_process():
        theirs.append(PeriodicCheckpointer(checkpointer, checkpoint_period))
    if eval_period:
        theirs.append(EvalHook(eval_period, results))
    trainer.register_hooks(insert_hooks(theirs, hooks))
    start = 0
    if resume:
        checkpointer.resume_or_load("", resume=True)
        data.start = start = trainer.iter + 1
    trainer.train(start, iterations)
    return trainer


def score(trainer):
    """The loss of a fixed batch, under a name that means "less is better"."""
    from detectron2.utils.comm import get_world_size

    model = trainer.model.module if get_world_size() > 1 else trainer.model
    batch = next(iter(Batches(start=500)))
    return {"val": {"loss": nn.functional.cross_entropy(model(batch), batch["y"]).item()}}


def weights(trainer):
    """A copy of all parameters and statistics."""
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}
