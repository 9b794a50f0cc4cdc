"""The losses that at least two of OpenMMLab, Detectron2 and cvplugins have, on the same inputs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

from cvplugins import losses as ours

__all__ = ["CASES", "LossCase", "compare"]

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class LossCase:
    """One loss.

    Attributes:
        name: Of the loss here.
        inputs: Makes prediction and target.
        openmmlab: The loss of mmdet or mmseg, and what it is called; None if it has none.
        detectron2: The same of Detectron2.
        here: The loss here.
        differs: Why not all agree; empty if they do.
    """

    name: str
    inputs: Callable[[torch.Generator], tuple[Tensor, Tensor]]
    openmmlab: tuple[str, Loss] | None
    detectron2: tuple[str, Loss] | None
    here: Loss
    differs: str = ""


def compare(case: LossCase) -> tuple[dict[str, float], float, float]:
    """Return the values by framework, and the largest differences of value and of gradient between two of them.

    In float64: what differs is the definition, not the rounding.
    """
    prediction, target = case.inputs(torch.Generator().manual_seed(0))
    found = {}
    for framework, loss in _present(case):
        given = prediction.clone().requires_grad_()
        value = loss(given, target)
        (gradient,) = torch.autograd.grad(value, given)
        found[framework] = value.item(), gradient
    pairs = list(combinations(found.values(), 2))
    of_value = max(abs(one[0] - other[0]) for one, other in pairs)
    of_gradient = max((one[1] - other[1]).abs().max().item() for one, other in pairs)
    return {framework: value for framework, (value, _) in found.items()}, of_value, of_gradient


def _present(case: LossCase) -> Iterator[tuple[str, Loss]]:
    for framework in ("openmmlab", "detectron2"):
        if getattr(case, framework) is not None:
            yield framework, getattr(case, framework)[1]
    yield "here", case.here


def _mmdet(name: str, **options: object) -> Loss:
    def call(prediction: Tensor, target: Tensor) -> Tensor:
        return getattr(importlib.import_module("mmdet.models.losses"), name)(**options)(prediction, target)

    return call


def _mmseg(name: str, **options: object) -> Loss:
    def call(prediction: Tensor, target: Tensor) -> Tensor:
        loss = getattr(importlib.import_module("mmseg.models.losses"), name)(**options)
        return loss(prediction, target, ignore_index=255) if name == "CrossEntropyLoss" else loss(prediction, target)

    return call


def _in_float32(loss: Loss) -> Loss:
    return lambda prediction, target: loss(prediction.float(), target)


def _function(module: str, name: str, **options: object) -> Loss:
    def call(prediction: Tensor, target: Tensor) -> Tensor:
        return getattr(importlib.import_module(module), name)(prediction, target, reduction="mean", **options)

    return call


def _scores(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    logits = 2 * torch.randn(64, 21, dtype=torch.float64, generator=generator)
    return logits, torch.randint(21, (64,), generator=generator)


def _several(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    logits, _ = _scores(generator)
    return logits, (torch.rand(logits.shape, generator=generator) < 0.1).double()


def _offsets(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    target = torch.randn(64, 4, dtype=torch.float64, generator=generator)
    return target + 0.3 * torch.randn(64, 4, dtype=torch.float64, generator=generator), target


def _boxes(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    corner = 50 * torch.rand(64, 2, dtype=torch.float64, generator=generator)
    size = 20 + 40 * torch.rand(64, 2, dtype=torch.float64, generator=generator)
    target = torch.cat([corner, corner + size], dim=1)
    return target + 16 * torch.rand(64, 4, dtype=torch.float64, generator=generator) - 8, target


def _pixels(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    logits = 2 * torch.randn(2, 5, 12, 16, dtype=torch.float64, generator=generator)
    return logits, torch.randint(5, (2, 12, 16), generator=generator)


def _pixels_with_ignored(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    logits, target = _pixels(generator)
    target[:, :3] = 255
    return logits, target


def _points(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    logits = 2 * torch.randn(6, 200, dtype=torch.float64, generator=generator)
    return logits, (torch.rand(6, 200, generator=generator) < 0.3).double()


def _embeddings(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(32, 8, dtype=torch.float64, generator=generator), torch.arange(32) % 4


def _of_one_hot(loss: Loss) -> Loss:
    """Call a loss of sigmoids, which fvcore gives probabilities, with indices."""

    def call(logits: Tensor, target: Tensor) -> Tensor:
        return loss(logits, functional.one_hot(target, logits.shape[1]).to(logits.dtype))

    return call


FVCORE = "fvcore.nn"
LAYERS = "detectron2.layers"
CASES = (
    LossCase(
        "CrossEntropyLoss",
        _scores,
        ("mmdet `CrossEntropyLoss`", _mmdet("CrossEntropyLoss")),
        ("`cross_entropy` of its box heads", _function(LAYERS, "cross_entropy")),
        ours.CrossEntropyLoss(),
    ),
    LossCase(
        "CrossEntropyLoss, a quarter of the pixels ignored",
        _pixels_with_ignored,
        ("mmseg `CrossEntropyLoss`", _mmseg("CrossEntropyLoss")),
        ("`cross_entropy` of its `SemSegFPNHead`", _function("torch.nn.functional", "cross_entropy", ignore_index=255)),
        ours.CrossEntropyLoss(ignore_index=255),
        "mmseg and mmdet divide by all pixels unless `avg_non_ignore=True`; the others by those that count",
    ),
    LossCase(
        "BCELoss",
        _several,
        ("mmdet `CrossEntropyLoss(use_sigmoid=True)`", _mmdet("CrossEntropyLoss", use_sigmoid=True)),
        ("the objectness of its `RPN`", _function("torch.nn.functional", "binary_cross_entropy_with_logits")),
        ours.BCELoss(),
    ),
    LossCase(
        "FocalLoss, sigmoid",
        _scores,
        ("mmdet `FocalLoss`", _mmdet("FocalLoss", use_sigmoid=True)),
        ("fvcore `sigmoid_focal_loss`", _of_one_hot(_function(FVCORE, "sigmoid_focal_loss", alpha=0.25, gamma=2.0))),
        ours.FocalLoss(use_sigmoid=True, alpha=0.25),
    ),
    LossCase(
        "L1Loss",
        _offsets,
        ("mmdet `L1Loss`", _mmdet("L1Loss")),
        ("fvcore `smooth_l1_loss`, `beta=0`", _function(FVCORE, "smooth_l1_loss", beta=0.0)),
        ours.L1Loss(),
    ),
    LossCase(
        "SmoothL1Loss, `beta=1/9`",
        _offsets,
        ("mmdet `SmoothL1Loss`", _mmdet("SmoothL1Loss", beta=1 / 9)),
        ("fvcore `smooth_l1_loss`", _function(FVCORE, "smooth_l1_loss", beta=1 / 9)),
        ours.SmoothL1Loss(beta=1 / 9),
    ),
    LossCase("L2Loss", _offsets, ("mmdet `MSELoss`", _mmdet("MSELoss")), None, ours.L2Loss()),
    LossCase(
        "BoxIoULoss, `iou`",
        _boxes,
        ("mmdet `IoULoss(mode='linear')`", _mmdet("IoULoss", mode="linear")),
        None,
        ours.BoxIoULoss(kind="iou"),
    ),
    LossCase(
        "BoxIoULoss, `giou`",
        _boxes,
        ("mmdet `GIoULoss`", _mmdet("GIoULoss", eps=1e-7)),
        ("fvcore `giou_loss`", _function(FVCORE, "giou_loss")),
        ours.BoxIoULoss(kind="giou"),
    ),
    LossCase(
        "BoxIoULoss, `diou`",
        _boxes,
        ("mmdet `DIoULoss`", _mmdet("DIoULoss", eps=1e-7)),
        ("`diou_loss`", _function(LAYERS, "diou_loss")),
        ours.BoxIoULoss(kind="diou"),
    ),
    LossCase(
        "BoxIoULoss, `ciou`",
        _boxes,
        ("mmdet `CIoULoss`", _mmdet("CIoULoss", eps=1e-7)),
        ("`ciou_loss`", _function(LAYERS, "ciou_loss")),
        ours.BoxIoULoss(kind="ciou"),
        "mmdet leaves out the penalty of the aspect ratio where the IoU is 0.5 or less",
    ),
    LossCase(
        "BoxIoULoss, `eiou`",
        _boxes,
        ("mmdet `EIoULoss`", _mmdet("EIoULoss", eps=1e-7)),
        None,
        ours.BoxIoULoss(kind="eiou"),
        "two losses of one name: mmdet's is Extended IoU, a smoothed `1 - IoU`, ours Efficient IoU (arXiv:2101.08158)",
    ),
    LossCase(
        "BoxIoULoss, `siou`",
        _boxes,
        ("mmdet `SIoULoss(neg_gamma=True)`", _mmdet("SIoULoss", eps=1e-7, neg_gamma=True)),
        None,
        ours.BoxIoULoss(kind="siou"),
    ),
    LossCase(
        "DiceLoss, binary, `smooth=0.5`",
        _points,
        (
            "mmdet `DiceLoss` of Mask2Former",
            _mmdet("DiceLoss", use_sigmoid=True, activate=True, naive_dice=True, eps=1.0),
        ),
        None,
        ours.DiceLoss(mode="binary", smooth=0.5),
    ),
    LossCase(
        "DiceLoss",
        _pixels,
        ("mmseg `DiceLoss`", _mmseg("DiceLoss", use_sigmoid=False, naive_dice=True, eps=2.0)),
        None,
        ours.DiceLoss(),
        "mmseg has one fraction for all classes of an image together, so that large classes decide",
    ),
    LossCase(
        "TverskyLoss, `alpha=0.3`, `beta=0.7`",
        _pixels,
        ("mmseg `TverskyLoss`", _mmseg("TverskyLoss")),
        None,
        ours.TverskyLoss(alpha=0.3, beta=0.7),
    ),
    LossCase(
        "LovaszLoss",
        _pixels,
        ("mmseg `LovaszLoss(per_image=True)`", _in_float32(_mmseg("LovaszLoss", per_image=True))),
        None,
        ours.LovaszLoss(),
    ),
    LossCase(
        "HausdorffLoss",
        _pixels,
        ("mmseg `HuasdorffDisstanceLoss`", _mmseg("HuasdorffDisstanceLoss")),
        None,
        ours.HausdorffLoss(),
        "mmseg subtracts the number of the class from each probability, and takes all classes for one region",
    ),
    LossCase(
        "TripletLoss",
        _embeddings,
        ("mmdet `TripletLoss`", _mmdet("TripletLoss", margin=0.3)),
        None,
        ours.TripletLoss(margin=0.3),
    ),
)
