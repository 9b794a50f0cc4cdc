"""What does watching the gradients cost, compared with reading them once, and with training?

Run ``python benchmarks/gradient_health.py`` for ResNet-50's gradients alone, and with ``--detector`` (needs mmdet) for
an iteration of Faster R-CNN R50-FPN: forward, backward and step for one image of 1000 x 600; ``--device cuda`` for a
GPU. The candidates take turns; each line is the median over the rounds, on a CPU of processor time, which other work on
the machine moves little. A closer look (zeros, updates) is what one costs; ``GradientHealthHook`` takes one every 100
iterations.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from cvplugins.monitors import GradientHealth

READ = "torch._foreach_norm and one transfer"
WATCH = "GradientHealth.observe, with verdicts"
WARM_UP = 3  # rounds
CONFIG = Path(__file__).parents[1] / "configs" / "voc_faster_rcnn.py"


def resnet50_parameters(device: str) -> list[tuple[str, nn.Parameter]]:
    """Return the 161 named parameters of ResNet-50, 25.6 million values, with gradients."""
    shapes: list[tuple[str, tuple[int, ...]]] = [("conv1.weight", (64, 3, 7, 7)), *_batch_norm("bn1", 64)]
    inputs = 64
    for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], start=1):
        for block in range(blocks):
            outputs = 4 * width
            convolutions = [(width, inputs, 1, 1), (width, width, 3, 3), (outputs, width, 1, 1)]
            if block == 0:
                convolutions.append((outputs, inputs, 1, 1))
            for number, shape in enumerate(convolutions, start=1):
                name = f"layer{stage}.{block}"
                shapes += [(f"{name}.conv{number}.weight", shape), *_batch_norm(f"{name}.bn{number}", shape[0])]
            inputs = outputs
    shapes += [("fc.weight", (1000, 2048)), ("fc.bias", (1000,))]
    parameters = []
    for name, shape in shapes:
        parameter = nn.Parameter(torch.empty(shape, device=device))
        parameter.grad = torch.randn(shape, device=device)
        parameters.append((name, parameter))
    return parameters


def _batch_norm(name: str, channels: int) -> list[tuple[str, tuple[int, ...]]]:
    return [(f"{name}.weight", (channels,)), (f"{name}.bias", (channels,))]


def one_by_one(gradients: list[Tensor]) -> None:
    """Check each gradient as is often done: its norm, any NaN, any infinity, each read at once."""
    for gradient in gradients:
        gradient.norm().item()
        gradient.isnan().any().item()
        gradient.isinf().any().item()


def read_once(gradients: list[Tensor]) -> list[float]:
    """Read the norms of all gradients."""
    return torch.stack(torch._foreach_norm(gradients)).tolist()


def reading(device: str) -> tuple[str, dict[str, Callable[[], object]]]:
    """Return what there is to compare for gradients alone, and its title."""
    parameters = resnet50_parameters(device)
    gradients = [parameter.grad for _, parameter in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    monitor, closer = GradientHealth(), GradientHealth(detail_interval=1)

    def look_closer() -> None:
        closer.observe(parameters, 0)
        closer.after_step(0)

    return f"ResNet-50, {len(gradients)} gradients, {flat.numel():,} values", {
        "sum of one flat tensor (memory limit)": lambda: flat.sum().item(),
        READ: lambda: read_once(gradients),
        WATCH: lambda: monitor.observe(parameters, 0),
        "the same with a closer look": look_closer,
        "norm, isnan, isinf of each": lambda: one_by_one(gradients),
    }


def training(device: str) -> tuple[str, dict[str, Callable[[], object]]]:
    """Return what there is to compare for a training iteration of Faster R-CNN, and its title."""
    from mmdet.structures import DetDataSample
    from mmengine.config import Config
    from mmengine.logging import MessageHub
    from mmengine.registry import HOOKS, MODELS, init_default_scope
    from mmengine.structures import InstanceData

    init_default_scope("mmdet")
    config = Config.fromfile(CONFIG).model
    config.backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(config).to(device).train()
    size = (608, 1024)  # 600 x 1000, padded to multiples of 32
    sample = DetDataSample(metainfo={"img_shape": size, "pad_shape": size, "batch_input_shape": size})
    boxes = torch.tensor([[100.0, 100, 300, 400], [500, 50, 900, 500]], device=device)
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([1, 5], device=device))
    image = torch.randn(1, 3, *size, device=device)
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=1e-4, momentum=0.9)
    runner = SimpleNamespace(iter=0, model=model, message_hub=MessageHub.get_instance("benchmark"))
    runner.logger = SimpleNamespace(warning=print, info=print)
    hook = HOOKS.build(dict(type="cvplugins.GradientHealthHook", detail_interval=10**9))
    hook._parameters = {}
    hook.monitor._last_detail = 0  # the closer look has a line of its own
    monitor, closer = GradientHealth(), GradientHealth(detail_interval=1)
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]

    def iterate() -> None:
        runner.iter += 1
        optimizer.zero_grad()
        model.parse_losses(model(image, [sample.clone()], mode="loss"))[0].backward()
        optimizer.step()
        named[0][1].sum().item()  # waits for a GPU

    def look_closer() -> None:
        closer.observe(named, runner.iter)
        closer.after_step(runner.iter)

    iterate()
    gradients = [value.grad for _, value in named if value.grad is not None]
    title = f"Faster R-CNN R50-FPN, {len(gradients)} gradients, {sum(each.numel() for each in gradients):,} values"
    return title, {
        "training iteration": iterate,
        READ: lambda: read_once([value.grad for _, value in named if value.grad is not None]),
        WATCH: lambda: monitor.observe(named, runner.iter),
        "GradientHealthHook, interval 1": lambda: hook._observe(runner, optimizer),
        "the same with a closer look": look_closer,
    }


def milliseconds(call: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return the duration of a call that ends with a read from the device."""
    start = clock()
    call()
    return (clock() - start) * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--detector", action="store_true", help="measure the share of a training iteration")
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    title, candidates = (training if args.detector else reading)(args.device)
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(args.rounds + WARM_UP):
        for name, call in candidates.items():
            times[name].append(milliseconds(call, clock))
    medians = {name: statistics.median(values[WARM_UP:]) for name, values in times.items()}
    print(f"{title}, {args.device}, {torch.get_num_threads()} threads")
    print(f"{'':40} {'':11} {'x one read':>10}" + ("  of an iteration" if args.detector else ""))
    for name, median in medians.items():
        share = f" {median / medians['training iteration']:15.3%}" if args.detector else ""
        print(f"{name:40} {median:8.2f} ms {median / medians[READ]:10.2f}{share}")


if __name__ == "__main__":
    main()
