"""What do the hooks that steer a training cost, as a share of an iteration of Faster R-CNN R50-FPN?

Run ``python benchmarks/training_hooks.py``; the candidates take turns, and each line is the median over the rounds.
The iteration is of one image of 640 x 400, forward, backward and SGD step, of 41 million parameters.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))


def milliseconds(call: Callable[[], object]) -> float:
    """Return the duration of a call."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000


def detector() -> torch.nn.Module:
    """Return Faster R-CNN R50-FPN with random weights."""
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    from cvplugins.openmmlab.config import load_config

    init_default_scope("mmdet")
    root = Path(__file__).resolve().parents[1]
    config = load_config(str(root / "configs/voc_faster_rcnn.py"), {"model.backbone.init_cfg": None})
    return MODELS.build(config.model).train()


def main() -> None:
    """Print a table."""
    from small_models import batch

    from cvplugins.monitors import (
        BestWeights,
        EarlyStopping,
        Generalization,
        GeneralizationPoint,
        LayerFreeze,
        WeightShrinkage,
        split_learning_rates,
        switch_optimizer,
    )
    from cvplugins.reporting import draw_generalization_figure

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    model = detector()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6, momentum=0.9)
    data = batch()
    data = {
        "inputs": [torch.randint(0, 255, (3, 400, 640), dtype=torch.uint8)],
        "data_samples": data["data_samples"][:1],
    }
    data["data_samples"][0].set_metainfo({"img_shape": (400, 640), "batch_input_shape": (400, 640)})

    def iteration() -> None:
        optimizer.zero_grad()
        losses = model(**model.data_preprocessor(data, True), mode="loss")
        model.parse_losses(losses)[0].backward()
        optimizer.step()

    folder = Path(tempfile.mkdtemp())
    penalty = WeightShrinkage(model, l1=1e-9, l2=1e-9)
    freeze = LayerFreeze(model, [{"layers": ["backbone"], "until": 10**9}])
    general, loss = Generalization(), torch.tensor(1.0)
    for n in range(100):
        general.observe(GeneralizationPoint(n, 1.0, 1.0))
    best, stopping = BestWeights(folder / "best.pth"), EarlyStopping()

    def rates() -> None:
        split_learning_rates(torch.optim.SGD(model.parameters(), lr=1.0), model, {"backbone": 0.1})

    candidates: dict[str, Callable[[], object]] = {
        "iteration: none": iteration,
        "iteration: WeightPenaltyHook, gradient, L1 and L2": lambda: penalty.add_gradient(optimizer),
        "iteration: WeightPenaltyHook, proximal, L1 and L2": lambda: penalty.shrink(optimizer),
        "every 50: WeightPenaltyHook, report": penalty.report,
        "iteration: GeneralizationHook": lambda: general.add(loss),
        "validation: GeneralizationHook, verdict after 100": lambda: general._judge([r.point for r in general.reports]),
        "verdict: GeneralizationHook, figure": lambda: draw_generalization_figure(general.reports, folder / "a.png"),
        "validation: EarlyStoppingHook": lambda: stopping.observe(1.0, 0),
        "best: EarlyStoppingHook, weights to disk": lambda: best.keep(model),
        "once: LayerFreezeHook, rates": rates,
        "once: OptimizerSwitchHook": lambda: switch_optimizer(
            optimizer, lambda groups: torch.optim.SGD(groups, lr=1.0)
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            times[name].append(milliseconds(call))
    freeze.observe(0)
    times["iteration: LayerFreezeHook"] = [milliseconds(lambda: freeze.observe(1)) for _ in range(rounds)]
    freeze.restore()
    whole = statistics.median(times["iteration: none"])
    for name, values in times.items():
        print(f"{name:50} {statistics.median(values):10.3f} ms {statistics.median(values) / whole:8.2%}")


if __name__ == "__main__":
    main()
