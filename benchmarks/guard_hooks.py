"""What do the guard against NaN and the clipping of gradients cost in a training iteration of Faster R-CNN R50-FPN?

Run ``python benchmarks/guard_hooks.py`` (``--device cuda`` for a GPU). All parts are timed within the same iterations,
each from an idle device to an idle device; the shares are medians of ratios of one iteration.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from cvplugins.monitors import ClippingRule, GradientClipping, NonFiniteGuard
from cvplugins.openmmlab.config import load_config


def detector(device: str) -> nn.Module:
    """Return the model of the config, with random weights."""
    init_default_scope("mmdet")
    model = load_config("configs/voc_faster_rcnn.py").model
    model.backbone.init_cfg = None
    return MODELS.build(model).to(device).train()


def random_batch(images: int, height: int, width: int) -> dict:
    """Return images of noise with three boxes each."""
    boxes = torch.tensor([[10.0, 10.0, 110.0, 140.0], [50.0, 60.0, 220.0, 190.0], [120.0, 30.0, 280.0, 180.0]])
    samples = []
    for _ in range(images):
        shape = dict(img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0))
        sample = DetDataSample(metainfo=shape)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([1, 5, 9]))
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        samples.append(sample)
    return dict(inputs=[torch.randint(0, 255, (3, height, width)).byte() for _ in samples], data_samples=samples)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--size", type=int, nargs=2, default=(600, 1000), help="height and width of the images")
    args = parser.parse_args()
    model = detector(args.device)
    sgd = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    batch = random_batch(args.images, *args.size)
    guard = NonFiniteGuard()
    named = list(model.named_parameters())
    clippings = {
        "clipping by norm": GradientClipping([ClippingRule(max_norm=1e9)]),
        "clipping by value": GradientClipping([ClippingRule(max_value=1e9)]),
        "adaptive clipping": GradientClipping([ClippingRule(clip_factor=1e9)]),
    }
    times: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        if args.device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        result = call()
        if args.device == "cuda":
            torch.cuda.synchronize()
        times.setdefault(name, []).append(time.perf_counter() - start)
        return result

    def forward_and_backward() -> dict[str, Tensor]:
        losses = model(**model.data_preprocessor(batch, True), mode="loss")
        model.parse_losses(losses)[0].backward()
        return losses

    def one_iteration(iteration: int) -> None:
        timed("guard: begin", lambda: guard.begin(model))
        losses = timed("forward and backward", forward_and_backward)
        components = {name: value for name, value in losses.items() if "loss" in name}
        gradients = [value.grad for _, value in named if value.grad is not None]
        timed("one read of all gradients", lambda: torch.stack(torch._foreach_norm(gradients)).tolist())
        timed("guard: observe", lambda: guard.observe(model, components, iteration))
        for name, clipping in clippings.items():
            timed(name, lambda clipping=clipping: clipping.clip_(named))
        timed("step", sgd.step)
        sgd.zero_grad()

    for iteration in range(args.rounds + 2):  # two to warm up
        one_iteration(iteration)
    plain = [sum(parts) for parts in zip(times["forward and backward"], times["step"], strict=True)]
    shape = f"{args.images} images of {args.size[0]} x {args.size[1]}, {args.device}, {torch.get_num_threads()} threads"
    print(f"{sum(value.numel() for _, value in named):,} parameters, {shape}")
    for name, values in times.items():
        share = statistics.median(value / whole for value, whole in zip(values[2:], plain[2:], strict=True))
        print(f"{name:28} {statistics.median(values[2:]) * 1000:10.2f} ms {share:9.3%} of an iteration")


if __name__ == "__main__":
    main()
