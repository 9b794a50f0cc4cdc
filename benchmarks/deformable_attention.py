"""How fast is multi-scale deformable attention, forward and backward, and what memory does it take?

``python benchmarks/deformable_attention.py`` times one layer of Mask2Former's pixel decoder (R50: 3 levels, 8 heads of
32 channels, 4 points) for a crop of 512 and one of 1024; ``--device cuda`` on a GPU, in float32, float16 and bfloat16.
The candidates are what is there:

- Triton: cvplugins on a GPU. torch: cvplugins elsewhere, and for deterministic gradients.
- mmcv formula, Mask2Former formula: ``grid_sample`` by level, which they use where their operator is not compiled
  (MASK2FORMER_ROOT names a checkout of the latter).
- mmcv operator, Mask2Former operator: on a GPU, if they are compiled. The second has no half precision, and neither
  has bfloat16.

The candidates take turns; a line is the median of the rounds, on a CPU of processor time (set ``OMP_NUM_THREADS=1``).
*Kept* is what is kept for the backward pass beside the arguments, *peak* the most that is held at once above them,
gradients included (CPU: as torch's profiler counts it).

``OMP_NUM_THREADS=1 python benchmarks/deformable_attention.py --rounds 5`` with torch 2.12 on a busy shared machine with
two cores gave this::

    crop  type                            forward  backward   sum ms   kept  peak MiB
     512  float32  torch                    41.51    252.12   293.63      0       107
     512  float32  mmcv formula            296.37    586.05   882.42     67       205
     512  float32  Mask2Former formula     300.14    590.47   890.61     67       205
    1024  float32  torch                   153.72   1277.71  1431.43      0       427
    1024  float32  mmcv formula           1356.03   2508.10  3864.13    268       822
    1024  float32  Mask2Former formula    1244.00   2447.42  3691.42    268       822

No GPU has been measured yet.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd import Function
from torch.profiler import ProfilerActivity, profile

from cvplugins.ops import deformable_attention, deformable_attention_torch

MIB = 2**20
STRIDES, HEADS, CHANNELS, POINTS = (32, 16, 8), 8, 32, 4
IM2COL_STEP = 128
FORMULA = "mask2former/modeling/pixel_decoder/ops/functions/ms_deform_attn_func.py"
# value, spatial_shapes, level_start_index, sampling_locations, attention_weights to the output
Call = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Row:
    """What one candidate takes for one forward and backward pass of one layer."""

    crop: int
    dtype: str
    name: str
    forward_ms: float
    backward_ms: float
    kept_mib: float
    peak_mib: float


def arguments(crop: int, dtype: torch.dtype, device: str, batch: int) -> list[Tensor]:
    """Return the arguments of a layer: every pixel looks around itself, two pixels far."""
    shapes = torch.tensor([[crop // stride, crop // stride] for stride in STRIDES])
    pixels = shapes.prod(1)
    lines = [torch.cartesian_prod(*((torch.arange(size) + 0.5) / size for size in each)) for each in shapes.tolist()]
    centres = torch.cat(lines).flip(1)
    queries = len(centres)
    rand = torch.Generator().manual_seed(0)
    offsets = 2 * torch.randn(batch, queries, HEADS, len(STRIDES), POINTS, 2, generator=rand)
    locations = centres.view(1, queries, 1, 1, 1, 2) + offsets / shapes.flip(1)[:, None]
    value = torch.randn(batch, queries, HEADS, CHANNELS, generator=rand)
    weights = torch.randn(batch, queries, HEADS, len(STRIDES) * POINTS, generator=rand).softmax(-1)
    weights = weights.view(locations.shape[:-1])
    floats = [each.to(device, dtype).requires_grad_() for each in (value, locations, weights)]
    return [floats[0], shapes.to(device), (pixels.cumsum(0) - pixels).to(device), *floats[1:]]


class _Torch(Function):
    """cvplugins without Triton."""

    @staticmethod
    def forward(ctx, *args):
        ctx.save_for_backward(*args)
        return deformable_attention_torch.forward(*args)

    @staticmethod
    def backward(ctx, outer):
        value, locations, weights = deformable_attention_torch.backward(outer, *ctx.saved_tensors)
        return value, None, None, locations, weights


def candidates(device: str) -> Iterator[tuple[str, Call, tuple[torch.dtype, ...]]]:
    """Yield the names, calls and types of what is there."""
    halves = (torch.float16, torch.bfloat16)
    every = (torch.float32, *halves)
    if device == "cuda" and deformable_attention._kernels(torch.zeros(1, device=device)) is not None:
        yield "Triton", deformable_attention.multi_scale_deformable_attention, every
    yield "torch", _Torch.apply, every
    # grid_sample of halves is not on every CPU.
    both = every if device == "cuda" else (torch.float32,)
    if importlib.util.find_spec("mmcv") is not None:
        from mmcv.ops import multi_scale_deform_attn as mmcv

        yield "mmcv formula", lambda v, s, _, x, w: mmcv.multi_scale_deformable_attn_pytorch(v, s, x, w), both
        extension = importlib.util.find_spec("mmcv._ext")
        if device == "cuda" and extension is not None and not str(extension.origin).endswith(".py"):
            function = mmcv.MultiScaleDeformableAttnFunction
            yield "mmcv operator", lambda *args: function.apply(*args, IM2COL_STEP), (torch.float32, torch.float16)
    operator = importlib.util.find_spec("MultiScaleDeformableAttention") is not None
    project = _mask2former_functions(operator)
    if project is not None:
        yield "Mask2Former formula", lambda v, s, _, x, w: project.ms_deform_attn_core_pytorch(v, s, x, w), both
        if device == "cuda" and operator:
            function = project.MSDeformAttnFunction
            yield "Mask2Former operator", lambda *args: function.apply(*args, IM2COL_STEP), (torch.float32,)


def _mask2former_functions(operator: bool):
    """Return the project's one file with its formula; its package needs Detectron2, and its operator."""
    file = Path(os.environ.get("MASK2FORMER_ROOT", ""), FORMULA)
    if not file.is_file():
        return None
    spec = importlib.util.spec_from_file_location("ms_deform_attn_func", file)
    module = importlib.util.module_from_spec(spec)
    if not operator:
        sys.modules["MultiScaleDeformableAttention"] = module
    spec.loader.exec_module(module)
    if not operator:
        del sys.modules["MultiScaleDeformableAttention"]
    return module


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def seconds(call: Call, args: list[Tensor], device: str) -> tuple[float, float]:
    """Return those of a forward and of a backward pass."""
    begin = _now(device)
    output = call(*args)
    middle = _now(device)
    torch.autograd.grad(output, [args[0], *args[3:]], torch.ones_like(output))
    return middle - begin, _now(device) - middle


def kept_and_peak(call: Call, args: list[Tensor], device: str) -> tuple[float, float]:
    """Return in MiB what is kept between the passes beside arguments and output, and the most that is held at once."""
    inputs = [args[0], *args[3:]]
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        output = call(*args)
        kept = torch.cuda.memory_allocated() - before - output.nbytes
        torch.autograd.grad(output, inputs, torch.ones_like(output))
        return kept / MIB, (torch.cuda.max_memory_allocated() - before) / MIB
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as forward:
        output = call(*args)
    outer = torch.ones_like(output)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as backward:
        gradients = torch.autograd.grad(output, inputs, outer)
    held, peak = _held_and_peak(forward, 0)
    del gradients
    return (held - output.nbytes) / MIB, max(peak, _held_and_peak(backward, held + outer.nbytes)[1]) / MIB


def _held_and_peak(profiled: profile, held: int) -> tuple[int, int]:
    peak = held
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return held, peak


def rows(device: str = "cpu", crops: tuple[int, ...] = (512, 1024), batch: int = 1, rounds: int = 7) -> Iterator[Row]:
    """Yield the measurements, one crop and type after the other."""
    found = list(candidates(device))
    for crop in crops:
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            calls = {name: call for name, call, dtypes in found if dtype in dtypes}
            if device == "cpu" and dtype != torch.float32:
                continue  # nobody trains in half precision there
            args = arguments(crop, dtype, device, batch)
            for call in calls.values():
                seconds(call, args, device)  # compiles, and fills caches
            times = {name: [] for name in calls}
            for _ in range(rounds):
                for name, call in calls.items():
                    times[name].append(seconds(call, args, device))
            for name, call in calls.items():
                forward, backward = (1000 * statistics.median(each) for each in zip(*times[name], strict=True))
                kept, peak = kept_and_peak(call, args, device)
                yield Row(crop, str(dtype).removeprefix("torch."), name, forward, backward, kept, peak)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--crops", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(f"{'crop':>4}  {'type':<9}{'':<21}{'forward':>9}{'backward':>10}{'sum ms':>9}{'kept':>7}{'peak MiB':>10}")
    for row in rows(options.device, tuple(options.crops), options.batch, options.rounds):
        print(
            f"{row.crop:>4}  {row.dtype:<9}{row.name:<21}{row.forward_ms:>9.2f}{row.backward_ms:>10.2f}"
            f"{row.forward_ms + row.backward_ms:>9.2f}{row.kept_mib:>7.0f}{row.peak_mib:>10.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
