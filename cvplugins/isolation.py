"""Call a model's training code for its value alone: no layer moves, no other rank is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch import nn

__all__ = ["alone", "training_paths"]

LIBRARIES = ("torch", "torchvision", "transformers", "timm")  # their modules are layers, however they are composed


@contextmanager
def training_paths(model: nn.Module) -> Iterator[None]:
    """Let detectors, segmentors and heads take the path of training, and keep every layer in evaluation mode.

    Modules of mmdet, mmseg and Detectron2 ask ``self.training`` what to return, and their losses need the answer of
    training: in evaluation mode FCOS multiplies its boxes by the stride (mmdet/models/dense_heads/fcos_head.py), DINO
    and DDRNet leave out what their losses are made of, and Detectron2's models predict. What changes numbers (batch
    norm, dropout, drop path) are layers: modules without children, or attention of torch. The flags are set one by
    one, because a module's ``train()`` may do more.
    """
    flags = [(module, module.training) for module in model.modules()]
    for module, _ in flags:
        library = type(module).__module__.partition(".")[0]
        module.training = library not in LIBRARIES and next(module.children(), None) is not None
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def alone() -> Iterator[None]:
    """Hide the other ranks: whoever asks torch finds no default process group.

    Heads average their normaliser over the ranks (``reduce_mean`` of mmdet, Mask2Former's criterion). For a value per
    image this is wrong, and it hangs where one rank has more images than another. No option of theirs turns it off.
    """
    group = dist.group.WORLD if dist.is_available() else None
    if group is None:
        yield
        return
    dist.group.WORLD = None
    try:
        yield
    finally:
        dist.group.WORLD = group
