"""Call a model's training code for its value alone: nothing moves, nothing is random, no other rank is asked."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

__all__ = ["alone", "fixed_randomness", "training_paths"]

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
def fixed_randomness(device: torch.device, seed: int = 0) -> Iterator[None]:
    """Seed the generators of Python, NumPy, torch and ``device``, and give them back as they were.

    >>> before = torch.get_rng_state()
    >>> with fixed_randomness(torch.device("cpu")): first = torch.rand(1)
    >>> with fixed_randomness(torch.device("cpu")): bool(torch.rand(1) == first)
    True
    >>> bool((torch.get_rng_state() == before).all())
    True
    """
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            random.seed(seed)
            np.random.seed(seed)
            # Not torch.manual_seed, which seeds every GPU.
            torch.default_generator.manual_seed(seed)
            if device.type == "cuda":
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


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
