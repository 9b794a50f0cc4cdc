"""Two Gloo ranks, of which one has the fault or the metric: all decide alike. One start of the ranks for all tests."""

import math
from pathlib import Path

import pytest
import torch
from helpers import run_ranks
from small_detectron2_trainer import Net, train

pytestmark = [pytest.mark.detectron2, pytest.mark.distributed]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return run_ranks(everything, 2, tmp_path_factory.mktemp("ranks"))


def everything(folder):
    return {each.__name__: each(Path(folder, each.__name__)) for each in (guarded, frozen, stopped, averaged)}


def parameters(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def guarded(folder):
    """The batch of one iteration is NaN on the second rank, and with that of another its model raises."""
    from detectron2.utils.comm import get_rank

    from cvplugins.detectron2 import NonFiniteGuardHook

    def poison(iteration, batch):
        return {**batch, "x": batch["x"] * math.nan} if (iteration, get_rank()) == (1, 1) else batch

    class Raising(Net):
        def forward(self, batch):
            if self.training and (int(batch["file_name"]), get_rank()) == (2, 1):
                raise FloatingPointError("not finite")
            return super().forward(batch)

    hook, model = NonFiniteGuardHook(policy="skip", output_dir=str(folder)), Raising()
    train(folder, [hook], iterations=4, change=poison, eval_period=0, model=model, seed=get_rank())
    return hook.monitor.guard.skips, parameters(model)


def test_a_fault_on_one_rank_is_skipped_on_both(ranks):
    (skips, first), (others, second) = (rank["guarded"] for rank in ranks)
    assert skips == others == 2
    assert equal(first, second)
    assert all(value.isfinite().all() for value in first.values())


def frozen(folder):
    """DDP as Detectron2 makes it would wait for the gradients of the frozen layers."""
    from detectron2.utils.comm import get_rank

    from cvplugins.detectron2 import LayerFreezeHook

    hook, model, during = LayerFreezeHook(frozen=[{"layers": ["backbone"], "until": 2}]), Net(), []

    def evaluate(trainer):
        during.append(parameters(model))
        return {}

    train(folder, [hook], iterations=4, model=model, seed=get_rank(), evaluate=evaluate)
    return during


def test_layers_are_frozen_and_released(ranks):
    (early, late), (_, other) = (rank["frozen"] for rank in ranks)
    start = parameters(Net())
    assert torch.equal(early["backbone.0.weight"], start["backbone.0.weight"])
    assert not torch.equal(early["head.weight"], start["head.weight"])
    assert not torch.equal(late["backbone.0.weight"], start["backbone.0.weight"])
    assert equal(late, other)


def stopped(folder):
    """The metric is known on the first rank alone, as that of Detectron2's evaluators."""
    from cvplugins.detectron2 import EarlyStoppingHook, TrainingStopped

    values = iter([0.7, 0.5, 0.6, 0.55, 0.1, 0.1])
    hook, model, during = EarlyStoppingHook("val/loss", patience=2, output_dir=str(folder)), Net(), []

    def evaluate(trainer):
        during.append(parameters(model))
        return {"val": {"loss": next(values)}}

    try:
        train(folder, [hook], iterations=12, evaluate=evaluate, model=model)
    except TrainingStopped as error:
        return error.reason, during[1], parameters(model)
    raise AssertionError("it did not stop")


def test_all_stop_and_have_the_best_weights(ranks):
    (first, best, weights), (second, _, others) = (rank["stopped"] for rank in ranks)
    assert first == second
    assert "0.55 after a best of 0.5 at iteration 4" in first
    assert equal(weights, best)
    assert equal(others, best)


def averaged(folder):
    from detectron2.utils.comm import get_rank

    from cvplugins.detectron2 import EMAHook

    during, model = [], Net()

    def evaluate(trainer):
        during.append(parameters(model))
        return {}

    train(folder, [EMAHook(0.5)], iterations=4, evaluate=evaluate, model=model, seed=get_rank())
    return during


def test_the_average_is_the_same(ranks):
    first, second = (rank["averaged"] for rank in ranks)
    assert all(equal(a, b) for a, b in zip(first, second, strict=True))
    assert not equal(first[0], first[1])
