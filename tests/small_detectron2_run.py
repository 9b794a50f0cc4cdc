"""A config of Detectron2 that trains and evaluates a small model on a small devkit in seconds."""

from __future__ import annotations

import torch
from small_detectron2 import small_config
from torch import nn

from cvplugins.distributed import rank, world_size

SIZE = 64


def write_config(path, devkit, kind="fpn", **keys):
    """Write the config of a kind of model, with dotted keys changed, and return its path."""
    cfg = small_config(kind, ours=False)
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = 20
    cfg.DATASETS.TRAIN = ("cvplugins_voc_2007_trainval", "cvplugins_voc_2012_trainval")
    cfg.DATASETS.TEST = ("cvplugins_voc_2007_test",)
    cfg.CVPLUGINS.DATA.ROOT = str(devkit)
    cfg.INPUT.update(MIN_SIZE_TRAIN=(SIZE,), MAX_SIZE_TRAIN=SIZE, MIN_SIZE_TEST=SIZE, MAX_SIZE_TEST=SIZE)
    cfg.SOLVER.update(IMS_PER_BATCH=2, BASE_LR=0.01, MAX_ITER=4, STEPS=(3,), WARMUP_ITERS=2, CHECKPOINT_PERIOD=2)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SEED = 7
    for name, value in keys.items():
        *folders, last = name.split(".")
        node = cfg
        for folder in folders:
            node = node[folder]
        node[last] = value
    path.write_text(cfg.dump())
    return path


def leaves(node, prefix=""):
    """Yield the dotted keys and values of a config."""
    from detectron2.config import CfgNode

    for name, value in node.items():
        if isinstance(value, CfgNode) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def differences(cfg, base):
    """The keys of a config that another one lacks, or has another value for."""
    base = dict(leaves(base))
    return {name: value for name, value in leaves(cfg) if name not in base or base[name] != value}


class Regression(nn.Module):
    """A loss that is a mean over images."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 1)

    def forward(self, batch):
        return {"loss": (self.layer(batch) - 1).square().mean()}


def trained_regression(batch_size, accumulate, amp=False):
    """Train three steps, on Detectron2's own trainer if there is nothing to accumulate; weights and losses."""
    from detectron2.engine import SimpleTrainer
    from detectron2.utils.events import EventStorage

    from cvplugins.detectron2.run.accumulation import AccumulatingTrainer

    images = torch.rand(24, 3, generator=torch.Generator().manual_seed(1))
    batches = images.split(batch_size)[rank() :: world_size()]
    model = Regression()
    if world_size() > 1:
        model = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if accumulate > 1:
        trainer = AccumulatingTrainer(model, batches, optimizer, accumulate, amp)
        if amp:  # the default scale overflows here, and the first steps are skipped
            trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    else:
        trainer = SimpleTrainer(model, batches, optimizer)
    losses = []
    with EventStorage() as storage:
        for trainer.iter in range(3):
            trainer.run_step()
            losses.append(storage.latest()["total_loss"][0] if rank() == 0 else None)
    return {name.removeprefix("module."): value for name, value in model.state_dict().items()}, losses
