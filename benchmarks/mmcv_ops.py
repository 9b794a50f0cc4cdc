"""How long do mmcv's operators take, compiled and not?

Run ``python benchmarks/mmcv_ops.py`` once with a Python whose mmcv is compiled and once with one where
cvplugins-mmcv-ops stands in; the first line says which it was. ``--device cuda`` for a GPU, ``--only nms`` for some of
the rows. Each line is the median over the rounds of one call, forward and, where there is a gradient, backward; on a
CPU of processor time, which other work on the machine moves little. An operator that the compiled mmcv lacks on a CPU
is said to be missing.

``OMP_NUM_THREADS=1 python benchmarks/mmcv_ops.py --rounds 5`` with torch 2.12 on a busy shared machine with two cores
gave this, in ms::

                                              cvplugins-mmcv-ops  compiled
    nms 1000                                                3.41      3.54
    nms 1000, offset 1                                      7.35      3.41
    nms_match 1000                                         12.61      9.03
    nms 10000                                             238.01    246.46
    nms 10000, offset 1                                   211.40    245.33
    nms_match 10000                                       283.41    337.84
    soft_nms 1000 naive                                    24.73      2.17
    soft_nms 1000 linear                                   36.57      6.40
    soft_nms 1000 gaussian                                 43.29     10.77
    roi_align 512x256x7x7 average                         690.33    705.37
    roi_align 512x256x7x7 average, 2 samples              831.43    843.88
    roi_align 512x256x7x7 maximum, 2 samples             1914.20    455.90
    roi_pool 512x256x7x7                                 1014.57   missing
    sigmoid_focal_loss 100k x 80                          187.39   missing
    softmax_focal_loss 100k x 80                          158.49   missing
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import mmcv
import mmcv._ext
import torch
from mmcv.ops import RoIAlign, RoIPool, nms, nms_match, sigmoid_focal_loss, soft_nms, softmax_focal_loss
from torch import Tensor


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="a part of a row's name")
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    print(f"mmcv {mmcv.__version__}, torch {torch.__version__}, {mmcv._ext.__file__}")
    for name, run in rows(options.device).items():
        if options.only in name:
            print(f"{name:40} {measure(run, options.device, options.rounds)}")


def rows(device: str) -> dict[str, Callable[[], object]]:
    """Return what is measured."""
    torch.manual_seed(0)
    calls: dict[str, Callable[[], object]] = {}
    for count in (1000, 10_000):
        boxes, scores = detections(count, device)
        dets = torch.cat([boxes, scores[:, None]], 1)
        calls[f"nms {count}"] = lambda boxes=boxes, scores=scores: nms(boxes, scores, 0.5)
        calls[f"nms {count}, offset 1"] = lambda boxes=boxes, scores=scores: nms(boxes, scores, 0.5, offset=1)
        calls[f"nms_match {count}"] = lambda dets=dets: nms_match(dets, 0.5)
    some, their_scores = detections(1000, device)
    for method in ("naive", "linear", "gaussian"):
        calls[f"soft_nms 1000 {method}"] = lambda method=method: soft_nms(some, their_scores, method=method)
    features = torch.randn(2, 256, 50, 68, device=device, requires_grad=True)  # an image of 800 x 1088 at a sixteenth
    image = torch.arange(512, device=device)[:, None].remainder(2).float()
    rois = torch.cat([image, some[:512]], 1)
    for name, pool in {
        "average": RoIAlign(7, 1 / 16),
        "average, 2 samples": RoIAlign(7, 1 / 16, 2),
        "maximum, 2 samples": RoIAlign(7, 1 / 16, 2, "max"),
    }.items():
        calls[f"roi_align 512x256x7x7 {name}"] = lambda pool=pool: differentiate(pool(features, rois), features)
    calls["roi_pool 512x256x7x7"] = lambda: differentiate(RoIPool(7, 1 / 16)(features, rois), features)
    logits = torch.randn(100_000, 80, device=device, requires_grad=True)
    target = torch.randint(0, 80, (100_000,), device=device)
    for name, loss in {"sigmoid": sigmoid_focal_loss, "softmax": softmax_focal_loss}.items():
        calls[f"{name}_focal_loss 100k x 80"] = lambda loss=loss: differentiate(loss(logits, target), logits)
    return calls


def detections(count: int, device: str) -> tuple[Tensor, Tensor]:
    """Return boxes in clusters of four in an image of 800 x 1088, and scores."""
    size, clusters = torch.tensor([1088.0, 800.0]), count // 4
    centre = (torch.rand(clusters, 2) * size).repeat_interleave(4, 0) + 8 * torch.randn(count, 2)
    half = (4 + 150 * torch.rand(clusters, 2).square()).repeat_interleave(4, 0) * (1 + 0.1 * torch.randn(count, 2))
    boxes = torch.cat([centre - half, centre + half], 1).clamp(min=0).minimum(size.repeat(2))
    return boxes.to(device), torch.rand(count).to(device)


def differentiate(output: Tensor, leaf: Tensor) -> Tensor:
    """Return the gradient of a sum."""
    return torch.autograd.grad(output.sum(), leaf)[0]


def measure(run: Callable[[], object], device: str, rounds: int) -> str:
    """Return the median in milliseconds, or that there is no such operator."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    times = []
    for number in range(rounds + 1):
        start = clock()
        try:
            run()
        except RuntimeError as error:
            if "implementation for device" not in str(error):
                raise
            return "missing"
        if device != "cpu":
            torch.cuda.synchronize()
        if number:  # the first round warms up
            times.append(clock() - start)
    return f"{1000 * statistics.median(times):9.2f}"


if __name__ == "__main__":
    main()
