"""How do the losses compare with their peers in time and memory, forward and backward?

Run ``python benchmarks/losses.py`` with as many of mmdet, mmseg, MONAI, segmentation-models-pytorch, fvcore and
torchvision installed as you want to compare with (``pip install monai segmentation-models-pytorch fvcore``); what is
missing is left out and said. ``--device cuda`` for a GPU, ``--only dice`` for some of the rows. The candidates of a
row take turns; a line is the median of the rounds, on a CPU of processor time, which other work on the machine moves
little. *Held* is what is kept for the backward pass beside the inputs, *peak* the most that is held at once above
them, gradients included (CPU: as torch's profiler counts it), both as multiples of the prediction's size.

On Linux memory comes in two regimes. Tensors below 32 MB soon get *warm* pages, which the process has used before;
larger ones get *fresh* pages from the system each time, and touching these first costs more than most arithmetic.
``--fresh-pages`` starts the benchmark again with glibc (no other allocator reads it) told to ask for fresh pages from
128 KiB on, so that these small rows show what larger ones meet. It also does so for temporaries of that size, which
are warm in other processes.

``OMP_NUM_THREADS=1 python benchmarks/losses.py --rounds 15``, and the same with ``--fresh-pages``, with torch 2.12 on a
busy shared machine with two cores gave this (*times* is the time over that of cvplugins; other work moved rows of the
same loss by up to half between runs, so compare within a row; smooth L1 and L2 call torch's own functions)::

                                                         warm pages      fresh pages
                                                          ms   times       ms   times    held    peak
    focal sigmoid 100k x 20       cvplugins              14.03    1.00    41.68    1.00    0.00    1.46
    focal sigmoid 100k x 20       cvplugins compiled     13.30    0.95    28.92    0.69    0.18    2.18
    focal sigmoid 100k x 20       mmdet                  34.66    2.47   148.64    3.57    7.00   10.10
    focal sigmoid 100k x 20       fvcore                 32.62    2.33   153.60    3.68    7.00   11.00
    focal sigmoid 100k x 20       torchvision            35.47    2.53   158.78    3.81    7.00   11.00
    focal softmax 2x19x256x256    cvplugins              10.97    1.00    25.37    1.00    0.00    1.37
    focal softmax 2x19x256x256    cvplugins compiled      5.96    0.54    12.75    0.50    0.28    1.28
    focal softmax 2x19x256x256    smp                    36.68    3.34   251.69    9.92    5.00    6.53
    focal softmax 2x19x256x256    MONAI                  20.36    1.86   115.47    4.55    5.00    8.00
    cross-entropy 2x19x256x256    cvplugins               8.37    1.00    20.78    1.00    1.00    3.00
    cross-entropy 2x19x256x256    cvplugins compiled      5.41    0.65     9.71    0.47    0.11    1.16
    cross-entropy 2x19x256x256    torch                  10.52    1.26    20.36    0.98    1.00    3.00
    cross-entropy 2x19x256x256    mmseg                  11.90    1.42    21.70    1.04    1.00    3.00
    BCE 100 masks x 12544 points  cvplugins               4.06    1.00    14.10    1.00    0.00    2.00
    BCE 100 masks x 12544 points  cvplugins compiled      3.35    0.82     5.91    0.42    0.00    1.00
    BCE 100 masks x 12544 points  torch                   3.80    0.94    13.80    0.98    0.00    2.00
    BCE 100 masks x 12544 points  mmdet                   7.54    1.86    27.98    1.98    1.00    3.00
    dice 2x19x256x256             cvplugins               8.46    1.00    17.47    1.00    1.00    1.06
    dice 2x19x256x256             cvplugins compiled      7.50    0.89    13.78    0.79    1.07    1.17
    dice 2x19x256x256             one-hot                17.39    2.06    65.24    3.74    2.00    4.00
    dice 2x19x256x256             mmseg                  24.47    2.89   101.97    5.84    3.00    7.11
    dice 2x19x256x256             MONAI                   9.22    1.09    37.65    2.16    2.00    3.00
    dice 2x19x256x256             smp                    22.39    2.65    73.31    4.20    3.00    6.00
    dice binary 100 x 12544       cvplugins               4.48    1.00     7.60    1.00    1.00    1.20
    dice binary 100 x 12544       cvplugins compiled      4.30    0.96     7.41    0.98    1.00    2.00
    dice binary 100 x 12544       mmdet                   5.88    1.31    14.15    1.86    1.00    3.00
    IoU 2x19x256x256              cvplugins               9.43    1.00    19.13    1.00    1.00    1.06
    IoU 2x19x256x256              cvplugins compiled      7.96    0.84    14.52    0.76    1.07    1.17
    IoU 2x19x256x256              smp                    24.88    2.64    76.29    3.99    3.00    6.00
    IoU 2x19x256x256              MONAI                  10.59    1.12    38.86    2.03    2.00    3.00
    tversky 2x19x256x256          cvplugins               9.20    1.00    16.60    1.00    1.00    1.06
    tversky 2x19x256x256          cvplugins compiled      9.19    1.00    14.14    0.85    1.07    1.17
    tversky 2x19x256x256          mmseg                 115.52   12.56   346.56   20.87    5.11    6.95
    tversky 2x19x256x256          MONAI                  15.83    1.72    69.05    4.16    3.00    5.00
    tversky 2x19x256x256          smp                    23.40    2.54    70.66    4.26    3.00    6.00
    generalized dice 2x19x256x256 cvplugins              13.21    1.00    12.25    1.00    1.00    1.06
    generalized dice 2x19x256x256 cvplugins compiled     11.57    0.88    11.67    0.95    1.07    1.17
    generalized dice 2x19x256x256 MONAI                  14.75    1.12    37.88    3.09    2.00    3.00
    lovasz 2x19x256x256           cvplugins             254.21    1.00   355.67    1.00    2.25    4.25
    lovasz 2x19x256x256           cvplugins compiled    224.51    0.88   257.22    0.72    1.12    6.12
    lovasz 2x19x256x256           mmseg                 285.56    1.12   525.62    1.48    5.11    6.74
    lovasz 2x19x256x256           smp                   296.17    1.17   503.64    1.42    5.00    6.63
    hausdorff 2x19x256x256        cvplugins             363.20    1.00   830.67    1.00    1.32    3.14
    hausdorff 2x19x256x256        cvplugins compiled    514.87    1.42   693.61    0.83    1.01    3.79
    hausdorff 2x19x256x256        MONAI                 378.60    1.04   794.57    0.96    3.00    4.84
    GIoU 20k pairs                cvplugins               1.29    1.00     1.41    1.00    1.00    4.32
    GIoU 20k pairs                cvplugins compiled      1.03    0.80     0.92    0.65    1.00    6.25
    GIoU 20k pairs                mmdet                   2.80    2.17     2.89    2.05    4.00    7.25
    GIoU 20k pairs                fvcore                  2.47    1.92     2.37    1.68    2.16    5.41
    GIoU 20k pairs                torchvision             2.62    2.03     2.58    1.83    2.16    4.41
    DIoU 20k pairs                cvplugins               1.53    1.00     2.06    1.00    1.00    4.42
    DIoU 20k pairs                cvplugins compiled      1.12    0.73     1.20    0.58    1.00    7.00
    DIoU 20k pairs                mmdet                   3.23    2.11     3.95    1.92    4.00    7.75
    DIoU 20k pairs                torchvision             2.98    1.95     3.46    1.68    2.66    5.91
    CIoU 20k pairs                cvplugins               2.33    1.00     1.85    1.00    1.00    4.63
    CIoU 20k pairs                cvplugins compiled      1.14    0.49     1.09    0.59    1.00    7.50
    CIoU 20k pairs                mmdet                   4.04    1.73     3.70    2.00    5.50   10.00
    CIoU 20k pairs                torchvision             4.00    1.71     3.54    1.92    3.91    5.91
    SIoU 20k pairs                cvplugins               2.90    1.00     3.41    1.00    1.00    5.96
    SIoU 20k pairs                cvplugins compiled      1.42    0.49     1.56    0.46    1.00    8.25
    SIoU 20k pairs                mmdet                   5.61    1.93     7.08    2.08   10.56   15.56
    L1 100k x 4                   cvplugins               0.97    1.00     3.96    1.00    1.00    3.00
    L1 100k x 4                   cvplugins compiled      1.42    1.46     1.79    0.45    1.00    1.00
    L1 100k x 4                   torch                   0.97    1.00     4.72    1.19    1.00    4.00
    L1 100k x 4                   mmdet                   1.08    1.11     4.82    1.22    1.00    4.00
    smooth L1 100k x 4            cvplugins               0.81    1.00     2.07    1.00    0.00    2.00
    smooth L1 100k x 4            cvplugins compiled      1.38    1.71     1.66    0.80    1.00    1.00
    smooth L1 100k x 4            torch                   0.80    0.99     1.78    0.86    0.00    2.00
    smooth L1 100k x 4            mmdet                   8.94   11.03    18.61    9.01    3.25    7.00
    smooth L1 100k x 4            fvcore                 10.34   12.76    19.15    9.27    2.25    7.00
    L2 100k x 4                   cvplugins               0.58    1.00     1.86    1.00    0.00    2.00
    L2 100k x 4                   cvplugins compiled      1.11    1.91     1.45    0.78    1.00    1.00
    L2 100k x 4                   torch                   1.44    2.47     1.66    0.90    0.00    2.00
    L2 100k x 4                   mmdet                   0.91    1.56     2.63    1.42    0.00    2.00
    SSIM 4x3x256x256              cvplugins              56.78    1.00   199.06    1.00    1.00   10.55
    SSIM 4x3x256x256              cvplugins compiled     44.49    0.78    98.34    0.49    1.00   23.72
    SSIM 4x3x256x256              MONAI                 125.23    2.21   318.69    1.60    9.39   15.95
    triplet 512 x 128             cvplugins               7.42    1.00    10.61    1.00    2.06   19.00
    triplet 512 x 128             cvplugins compiled      4.21    0.57     3.67    0.35    0.05   10.00
    triplet 512 x 128             mmdet                 172.73   23.29   562.98   53.06   14.03   22.03
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from cvplugins import losses as ours

Call = Callable[[Tensor, Tensor], Tensor]

FRESH_PAGES = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}  # glibc reads them at the start


class Row(NamedTuple):
    """One question: a prediction and its target, and who answers it how."""

    name: str
    make: Callable[[], tuple[Tensor, Tensor]]
    ours: Call
    peers: dict[str, Callable[[], Call]]  # built when needed: a peer may be missing


def class_scores() -> tuple[Tensor, Tensor]:
    """Return scores of 100,000 anchors and 20 classes, of which a third is background."""
    return torch.randn(100_000, 20), torch.randint(0, 30, (100_000,)).clamp(max=20)


def pixel_scores() -> tuple[Tensor, Tensor]:
    """Return scores and labels of two 256 x 256 images and 19 classes."""
    return torch.randn(2, 19, 256, 256), torch.randint(0, 19, (2, 256, 256))


def region_scores() -> tuple[Tensor, Tensor]:
    """Return scores of two 256 x 256 images and 19 classes, and labels in large regions."""
    return torch.randn(2, 19, 256, 256), torch.randint(0, 19, (2, 4, 4)).repeat_interleave(64, 1).repeat_interleave(
        64, 2
    )


def mask_points() -> tuple[Tensor, Tensor]:
    """Return 100 masks of 12,544 sampled points."""
    return torch.randn(100, 12_544), torch.randint(0, 2, (100, 12_544)).float()


def boxes() -> tuple[Tensor, Tensor]:
    """Return 20,000 pairs of boxes that overlap in part."""
    corner = torch.rand(2, 20_000, 2) * 100
    both = torch.cat([corner, corner + 1 + torch.rand(2, 20_000, 2) * 50], dim=-1)
    return both[0], both[1]


def offsets() -> tuple[Tensor, Tensor]:
    """Return 100,000 box offsets."""
    return torch.randn(100_000, 4), torch.randn(100_000, 4)


def images() -> tuple[Tensor, Tensor]:
    """Return four pairs of images."""
    return torch.rand(4, 3, 256, 256), torch.rand(4, 3, 256, 256)


def embeddings() -> tuple[Tensor, Tensor]:
    """Return 512 vectors of 64 labels."""
    return torch.randn(512, 128), torch.arange(512) % 64


def mmdet(name: str, **options: object) -> Callable[[], Call]:
    """Return a builder of a loss of mmdet."""

    def build() -> Call:
        from mmdet.models import losses

        return getattr(losses, name)(**options)

    return build


def mmseg(name: str, **options: object) -> Callable[[], Call]:
    """Return a builder of a loss of mmseg."""

    def build() -> Call:
        from mmseg.models import losses

        return getattr(losses, name)(**options)

    return build


def monai(name: str, *, classes: bool = False, **options: object) -> Callable[[], Call]:
    """Return a builder of a loss of MONAI, which wants labels with a channel."""

    def build() -> Call:
        from monai import losses

        loss = getattr(losses, name)(**options)
        return (lambda x, y: loss(x, y.unsqueeze(1))) if classes else loss

    return build


def smp(name: str, **options: object) -> Callable[[], Call]:
    """Return a builder of a loss of segmentation-models-pytorch."""

    def build() -> Call:
        from segmentation_models_pytorch import losses

        return getattr(losses, name)(**options)

    return build


def fvcore(name: str, *, one_hot: int = 0, **options: object) -> Callable[[], Call]:
    """Return a builder of a function of fvcore, with one-hot targets of so many classes and the background."""

    def build() -> Call:
        from fvcore import nn

        function = getattr(nn, name)
        return lambda x, y: function(x, _one_hot(y, one_hot) if one_hot else y, reduction="mean", **options)

    return build


def torchvision(name: str, *, one_hot: int = 0, **options: object) -> Callable[[], Call]:
    """Return a builder of a function of torchvision, with one-hot targets of so many classes and the background."""

    def build() -> Call:
        from torchvision import ops

        function = getattr(ops, name)
        return lambda x, y: function(x, _one_hot(y, one_hot) if one_hot else y, reduction="mean", **options)

    return build


def _one_hot(target: Tensor, classes: int) -> Tensor:
    return F.one_hot(target, classes + 1)[:, :classes].float()


def plain(call: Call) -> Callable[[], Call]:
    """Return a builder of what one writes with torch alone."""
    return lambda: call


def one_hot_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Return Dice as it is often written."""
    probability = logits.softmax(1)
    true = F.one_hot(target, logits.shape[1]).permute(0, 3, 1, 2).float()
    intersection = (probability * true).sum((2, 3))
    return (1 - (2 * intersection + 1) / (probability.sum((2, 3)) + true.sum((2, 3)) + 1)).mean()


ROWS = [
    Row("focal sigmoid 100k x 20", class_scores, ours.FocalLoss(use_sigmoid=True, alpha=0.25), {
        "mmdet": mmdet("FocalLoss", use_sigmoid=True),
        "fvcore": fvcore("sigmoid_focal_loss", one_hot=20, alpha=0.25),
        "torchvision": torchvision("sigmoid_focal_loss", one_hot=20, alpha=0.25),
    }),
    Row("focal softmax 2x19x256x256", pixel_scores, ours.FocalLoss(), {
        "smp": smp("FocalLoss", mode="multiclass"),
        "MONAI": monai("FocalLoss", classes=True, use_softmax=True, to_onehot_y=True),
    }),
    Row("cross-entropy 2x19x256x256", pixel_scores, ours.CrossEntropyLoss(), {
        "torch": plain(F.cross_entropy),
        "mmseg": mmseg("CrossEntropyLoss"),
    }),
    Row("BCE 100 masks x 12544 points", mask_points, ours.BCELoss(), {
        "torch": plain(F.binary_cross_entropy_with_logits),
        "mmdet": mmdet("CrossEntropyLoss", use_sigmoid=True),
    }),
    Row("dice 2x19x256x256", pixel_scores, ours.DiceLoss(), {
        "one-hot": plain(one_hot_dice),
        "mmseg": mmseg("DiceLoss"),
        "MONAI": monai("DiceLoss", classes=True, softmax=True, to_onehot_y=True),
        "smp": smp("DiceLoss", mode="multiclass"),
    }),
    Row("dice binary 100 x 12544", mask_points, ours.DiceLoss(mode="binary"), {
        "mmdet": mmdet("DiceLoss", use_sigmoid=True, activate=True, naive_dice=True, eps=1.0),
    }),
    Row("IoU 2x19x256x256", pixel_scores, ours.IoULoss(), {
        "smp": smp("JaccardLoss", mode="multiclass"),
        "MONAI": monai("DiceLoss", classes=True, softmax=True, to_onehot_y=True, jaccard=True),
    }),
    Row("tversky 2x19x256x256", pixel_scores, ours.TverskyLoss(), {
        "mmseg": mmseg("TverskyLoss"),
        "MONAI": monai("TverskyLoss", classes=True, softmax=True, to_onehot_y=True),
        "smp": smp("TverskyLoss", mode="multiclass"),
    }),
    Row("generalized dice 2x19x256x256", pixel_scores, ours.GeneralizedDiceLoss(), {
        "MONAI": monai("GeneralizedDiceLoss", classes=True, softmax=True, to_onehot_y=True),
    }),
    Row("lovasz 2x19x256x256", pixel_scores, ours.LovaszLoss(over="batch"), {
        "mmseg": mmseg("LovaszLoss", reduction="none"),
        "smp": smp("LovaszLoss", mode="multiclass"),
    }),
    Row("hausdorff 2x19x256x256", region_scores, ours.HausdorffLoss(), {
        "MONAI": monai("HausdorffDTLoss", classes=True, softmax=True, to_onehot_y=True, include_background=True),
    }),
    Row("GIoU 20k pairs", boxes, ours.BoxIoULoss("giou"), {
        "mmdet": mmdet("GIoULoss"),
        "fvcore": fvcore("giou_loss"),
        "torchvision": torchvision("generalized_box_iou_loss"),
    }),
    Row("DIoU 20k pairs", boxes, ours.BoxIoULoss("diou"), {
        "mmdet": mmdet("DIoULoss"),
        "torchvision": torchvision("distance_box_iou_loss"),
    }),
    Row("CIoU 20k pairs", boxes, ours.BoxIoULoss("ciou"), {
        "mmdet": mmdet("CIoULoss"),
        "torchvision": torchvision("complete_box_iou_loss"),
    }),
    Row("SIoU 20k pairs", boxes, ours.BoxIoULoss("siou"), {"mmdet": mmdet("SIoULoss", neg_gamma=True)}),
    Row("L1 100k x 4", offsets, ours.L1Loss(), {"torch": plain(F.l1_loss), "mmdet": mmdet("L1Loss")}),
    Row("smooth L1 100k x 4", offsets, ours.SmoothL1Loss(), {
        "torch": plain(F.smooth_l1_loss),
        "mmdet": mmdet("SmoothL1Loss"),
        "fvcore": fvcore("smooth_l1_loss", beta=1.0),
    }),
    Row("L2 100k x 4", offsets, ours.L2Loss(), {"torch": plain(F.mse_loss), "mmdet": mmdet("MSELoss")}),
    Row("SSIM 4x3x256x256", images, ours.SSIMLoss(), {"MONAI": monai("SSIMLoss", spatial_dims=2)}),
    Row("triplet 512 x 128", embeddings, ours.TripletLoss(), {"mmdet": mmdet("TripletLoss")}),
]  # fmt: skip


class Measured(NamedTuple):
    """Medians of one candidate: milliseconds forward and backward, and multiples of the prediction's size."""

    milliseconds: float
    held: float
    peak: float


def candidates(row: Row, compiled: bool) -> Iterator[tuple[str, Call | ImportError]]:
    """Yield who takes part; an ImportError for a peer that is missing."""
    yield "cvplugins", row.ours
    if compiled:
        torch._dynamo.reset()
        yield "cvplugins compiled", torch.compile(row.ours)
    for name, build in row.peers.items():
        try:
            yield name, build()
        except ImportError as error:
            yield name, error


def step(call: Call, prediction: Tensor, target: Tensor) -> float:
    """Return the milliseconds of forward and backward."""
    leaf = prediction.detach().clone().requires_grad_()
    clock = time.perf_counter if leaf.is_cuda else time.process_time
    _synchronise(prediction)
    start = clock()
    call(leaf, target).sum().backward()
    _synchronise(prediction)
    return (clock() - start) * 1000


def held_and_peak_bytes(call: Call, prediction: Tensor, target: Tensor) -> tuple[int, int]:
    """Return what is held between forward and backward, and the most that is held at once, above the inputs."""
    leaf = prediction.detach().clone().requires_grad_()
    if leaf.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        value = call(leaf, target).sum()
        held = torch.cuda.memory_allocated() - before
        value.backward()
        return held, torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as forward:
        value = call(leaf, target).sum()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as backward:
        value.backward()
    held, peak = _held_and_peak(forward, 0)
    return held, max(peak, _held_and_peak(backward, held)[1])


def _held_and_peak(profiled: profile, held: int) -> tuple[int, int]:
    peak = held
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return held, peak


def measure(row: Row, device: str, rounds: int, compiled: bool) -> dict[str, Measured | ImportError]:
    """Let the candidates of a row take turns."""
    torch.manual_seed(0)
    prediction, target = (tensor.to(device) for tensor in row.make())
    found = dict(candidates(row, compiled))
    present = {name: call for name, call in found.items() if not isinstance(call, ImportError)}
    times: dict[str, list[float]] = {name: [] for name in present}
    for number in range(rounds + 2):
        for name in random.sample(list(present), len(present)):  # nobody always comes after the same one
            elapsed = step(present[name], prediction, target)
            if number >= 2:  # the first ones compile and warm up
                times[name].append(elapsed)
    size = prediction.nbytes
    return {
        name: call
        if isinstance(call, ImportError)
        else Measured(
            statistics.median(times[name]), *(each / size for each in held_and_peak_bytes(call, prediction, target))
        )
        for name, call in found.items()
    }


def show(row: Row, measured: dict[str, Measured | ImportError]) -> None:
    """Print the lines of a row: the ratio is the time over that of cvplugins."""
    mine = measured["cvplugins"]
    for name, each in measured.items():
        if isinstance(each, ImportError):
            print(f"{row.name:<30}{name:<20} not installed ({each})")
        elif isinstance(mine, Measured):
            ratio = each.milliseconds / mine.milliseconds
            print(f"{row.name:<30}{name:<20}{each.milliseconds:>9.2f}{ratio:>8.2f}{each.held:>8.2f}{each.peak:>8.2f}")


def _synchronise(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="rows whose name contains this; wildcards are possible")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--fresh-pages", action="store_true", help="memory as of tensors above 32 MB (glibc)")
    args = parser.parse_args()
    if args.fresh_pages and not FRESH_PAGES.items() <= os.environ.items():
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **FRESH_PAGES})
    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    pages = "fresh" if args.fresh_pages else "warm"
    print(f"{args.device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {pages} pages\n")
    print(f"{'':<50}{'ms':>9}{'times':>8}{'held':>8}{'peak':>8}")
    for row in ROWS:
        if fnmatch.fnmatch(row.name.lower(), f"*{args.only.lower()}*"):
            show(row, measure(row, args.device, args.rounds, not args.no_compile))


if __name__ == "__main__":
    main()
