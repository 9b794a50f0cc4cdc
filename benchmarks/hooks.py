"""What does each hook cost in a training of Faster R-CNN R50-FPN, as a share of its iterations?

Run ``python benchmarks/hooks.py``: mmengine's Runner trains ``configs/voc_faster_rcnn.py`` on the embedded sample with
all hooks at once, and a clock counts what happens in each of them: on a CPU the processor time, which other work on the
machine moves little, on a GPU the time from an idle device to an idle device. Two of the hooks only read the gradients,
as a scale. What a hook hands over to others, as ValidationLoss
does to the evaluator, is theirs. Smaller images than the recipe's 1000 x 600 make the shares larger, not smaller.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from cvplugins.openmmlab.run.config import load_config

ROOT = Path(__file__).parents[1]
WARM_UP = 2  # iterations
SCALE = "torch._foreach_norm of all gradients, read once"
HOOKS: list[dict[str, Any]] = [
    dict(type="cvplugins.GradientHealthHook", detail_interval=5),
    dict(type="cvplugins.NonFiniteGuardHook"),
    dict(type="cvplugins.GradientClippingHook", clip_factor=1e9, interval=5),
    dict(type="cvplugins.WeightPenaltyHook", l1=1e-9, l2=1e-9, interval=5),
    dict(type="cvplugins.LayerFreezeHook", frozen=[dict(layers=["backbone.layer2"], until=3)]),
    dict(type="cvplugins.OptimizerSwitchHook", at=8, optimizer=dict(type="SGD", lr=1e-6)),
    dict(type="cvplugins.HardExampleMiningHook", capacity=4),
    dict(type="cvplugins.ThroughputHook", interval=5),
    dict(type="cvplugins.NormPolicyHook", rules=[dict(to="SyncBN")]),
    dict(type="cvplugins.PreciseBNHook", num_batches=2),
    dict(type="cvplugins.ValidationLoss"),
    dict(type="cvplugins.GeneralizationHook", figure=False),
    dict(type="cvplugins.EarlyStoppingHook", monitor="val/loss"),
]


class ReadGradients(Hook):
    """Read the gradients just before the optimizer's step, as the hooks do."""

    name = SCALE

    def before_train(self, runner) -> None:
        """Register with the optimizer."""
        self.parameters = list(runner.model.parameters())
        runner.optim_wrapper.optimizer.register_step_pre_hook(lambda *_: self.read())

    def read(self) -> None:
        """Read all norms in one transfer."""
        gradients = [each.grad for each in self.parameters if each.grad is not None]
        torch.stack(torch._foreach_norm(gradients)).tolist()


class ReadOneByOne(ReadGradients):
    """Read each gradient as is often done."""

    name = "norm, isnan and isinf of each gradient"

    def read(self) -> None:
        """Read three numbers of each gradient."""
        for gradient in (each.grad for each in self.parameters if each.grad is not None):
            gradient.norm().item()
            gradient.isnan().any().item()
            gradient.isinf().any().item()


class Clock:
    """Add up what happens in the methods of hooks, by hook, occasion and iteration."""

    def __init__(self, device: str) -> None:
        self.is_gpu = device == "cuda"
        self.seconds: dict[tuple[str, str], dict[int, float]] = defaultdict(lambda: defaultdict(float))
        self.runner: Runner | None = None
        self._inside: set[str] = set()  # a hook that calls itself counts once

    def now(self) -> float:
        """Return the time."""
        if self.is_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() if self.is_gpu else time.process_time()

    def watch(self, hook: Hook) -> None:
        """Measure every method of a hook."""
        name = getattr(hook, "name", None) if isinstance(hook, ReadGradients) else None
        for attribute in dir(hook):
            if attribute.startswith("__") or isinstance(getattr(type(hook), attribute, None), property):
                continue  # a property may need the training to have begun
            method = getattr(hook, attribute)
            if callable(method) and _is_method(method):
                setattr(hook, attribute, self._timed(name or type(hook).__name__, attribute, method))

    def _timed(self, hook: str, attribute: str, method: Any) -> Any:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            if hook in self._inside:
                return method(*args, **kwargs)
            self._inside.add(hook)
            start = self.now()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds[hook, occasion(attribute)][self.runner.iter] += self.now() - start
                self._inside.remove(hook)

        return call


def occasion(method: str) -> str:
    """Return when mmengine, the model or the optimizer calls a method of a hook."""
    if "train_iter" in method:
        return "iteration"
    if "val" in method:
        return "validation"
    if "checkpoint" in method:
        return "checkpoint"
    return "once" if method.startswith(("before_", "after_")) else "iteration"


def _is_method(value: Any) -> bool:
    return hasattr(value, "__self__") and not isinstance(value.__self__, type)


def make_config(args: argparse.Namespace, work_dir: str) -> Config:
    """Return the recipe, on the sample, with random weights and all hooks."""
    cfg = load_config(str(ROOT / "configs/voc_faster_rcnn.py"))
    data = str(ROOT / "data/sample/VOCdevkit") + "/"
    part = cfg.train_dataloader.dataset.dataset.datasets[0]
    part.update(data_root=data, indices=args.iterations * args.batch_size)
    part.pipeline[2].scale = tuple(args.scale)
    validation = cfg.val_dataloader.dataset
    validation.update(data_root=data, indices=2)
    validation.pipeline[1].scale = tuple(args.scale)
    sampler = dict(type="cvplugins.HardExampleSampler", ratio=0.25)
    cfg.train_dataloader = dict(dataset=part, batch_size=args.batch_size, sampler=sampler)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    cfg.model.backbone.init_cfg = None
    cfg.train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=1, val_interval=1)
    cfg.optim_wrapper.optimizer = dict(type="AdamW", lr=1e-6)
    cfg.custom_hooks, cfg.randomness, cfg.work_dir = HOOKS, dict(seed=0), work_dir
    return cfg


def main() -> None:
    """Train, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument(
        "--scale", type=int, nargs=2, default=(500, 300), help="images fit into this; the recipe's 1000 600"
    )
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clock = Clock(device)
    with tempfile.TemporaryDirectory() as work_dir:
        runner = Runner.from_cfg(make_config(args, work_dir))
        clock.runner = runner
        for hook in (ReadGradients(), ReadOneByOne()):
            runner.register_hook(hook)
        for hook in runner.hooks:
            if type(hook).__module__.startswith("cvplugins") or isinstance(hook, ReadGradients):
                clock.watch(hook)
        whole = time_iterations(runner, clock)
        runner.train()
    print_table(clock, whole, f"{args.batch_size} x {args.scale[0]} x {args.scale[1]}, {device}", runner)


def time_iterations(runner: Runner, clock: Clock) -> list[float]:
    """Let the model's training steps be timed, from the forward pass to the optimizer's step."""
    times: list[float] = []
    step = runner.model.train_step

    def train_step(*args: Any, **kwargs: Any) -> Any:
        start, before = clock.now(), spent(clock)
        outputs = step(*args, **kwargs)
        times.append(clock.now() - start - (spent(clock) - before))  # without what hooks did in the step
        return outputs

    runner.model.train_step = train_step
    return times


def spent(clock: Clock) -> float:
    """Return all that hooks have taken so far."""
    return sum(sum(values.values()) for values in clock.seconds.values())


def print_table(clock: Clock, whole: list[float], title: str, runner: Runner) -> None:
    """Print medians over the iterations, and what the costliest one took."""
    parameters = sum(value.numel() for value in runner.model.parameters() if value.requires_grad)
    iteration = statistics.median(whole[WARM_UP:])
    read = statistics.median(list(clock.seconds[SCALE, "iteration"].values())[WARM_UP:])
    print(f"Faster R-CNN R50-FPN, {parameters:,} values train, images {title}, {torch.get_num_threads()} threads")
    print(f"training iteration without hooks {iteration * 1000:.0f} ms; one read of all gradients {read * 1000:.1f} ms")
    print(f"{'':48} {'occasion':11} {'median ms':>10} {'of iteration':>13} {'reads':>7} {'most ms':>9}")
    for (hook, when), values in clock.seconds.items():
        kept = list(values.values())[WARM_UP if when == "iteration" else 0 :] or list(values.values())
        middle = statistics.median(kept)
        if max(kept) >= 0.00005:
            share = f"{middle / iteration:12.3%} {middle / read:8.2f}"
            print(f"{hook:48} {when:11} {middle * 1000:10.2f} {share} {max(kept) * 1000:9.2f}")


if __name__ == "__main__":
    main()
