"""Monitors that act on a run, against one without a framework: what they do to steps, and what they say when."""

import json

import pytest
import torch
from fake_run import FakeRun
from torch import nn

from cvplugins.monitors import (
    GradientClippingMonitor,
    GradientHealthMonitor,
    LayerFreezeMonitor,
    Monitor,
    Step,
    WeightPenaltyMonitor,
    watch_steps,
)


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))


def batches(count):
    torch.manual_seed(1)
    return [(torch.randn(8, 3), torch.randn(8, 1)) for _ in range(count)]


def trained(monitor, count=4, folder=None, **optimizer):
    run = FakeRun(model(), folder, **optimizer)
    run.train(monitor, batches(count))
    return run


def weights(run):
    return [value.detach().clone() for value in run.model.parameters()]


def test_penalty_is_the_weight_decay_of_sgd():
    """Oracle: torch's own weight_decay, on the matrices alone."""
    penalised = trained(WeightPenaltyMonitor(l2=0.3, interval=2))
    plain = FakeRun(model())
    matrices = [value for value in plain.model.parameters() if value.ndim > 1]
    vectors = [value for value in plain.model.parameters() if value.ndim == 1]
    plain._optimizers = {"": torch.optim.SGD([{"params": matrices, "weight_decay": 0.3}, {"params": vectors}], lr=0.1)}
    plain.train(Monitor(), batches(4))
    torch.testing.assert_close(weights(penalised), weights(plain))
    assert [iteration for iteration, _ in penalised.logged] == [1, 3]
    expected = sum(0.15 * value.square().sum().item() for value in penalised.model.parameters() if value.ndim > 1)
    assert penalised.logged[-1][1]["weight_penalty"] == pytest.approx(expected)
    assert penalised.infos[0] == "weight penalty on 2 parameters, as gradient"
    assert "of the penalised weights are 0" in penalised.infos[-1]


def test_second_decay_is_doubted():
    assert (
        "comes on top of the optimizer's weight_decay"
        in trained(WeightPenaltyMonitor(l2=0.1), weight_decay=0.1).warnings[0]
    )
    assert not trained(WeightPenaltyMonitor(l1=0.1), weight_decay=0.1).warnings


def test_step_that_a_fused_optimizer_skips_shrinks_nothing():
    """As GradScaler does: it hands over what it found, and the optimizer leaves the step out itself."""
    run = FakeRun(model())
    monitor = WeightPenaltyMonitor(l1=1.0, form="proximal")
    monitor.begin(run)
    before = weights(run)
    optimizer = run.optimizers[""]
    for value in run.model.parameters():
        value.grad = torch.zeros_like(value)
    optimizer.found_inf = torch.ones(())
    monitor.after_step(run, Step(optimizer))
    torch.testing.assert_close(weights(run), before, rtol=0, atol=0)
    optimizer.found_inf = torch.zeros(())
    monitor.after_step(run, Step(optimizer))
    assert run.model[0].weight.abs().sum() < before[0].abs().sum()


def test_penalty_is_scaled_as_the_gradients_are():
    run = FakeRun(model())
    monitor = WeightPenaltyMonitor(l2=0.5)
    monitor.begin(run)
    run.model[0].weight.grad = torch.zeros(4, 3)
    run.optimizers[""].grad_scale = torch.tensor(8.0)
    monitor.before_step(run, Step(run.optimizers[""]))
    torch.testing.assert_close(run.model[0].weight.grad, 8 * 0.5 * run.model[0].weight.detach())


def test_clipping_bounds_each_step_and_is_logged():
    """Oracle: a step of SGD is the rate times the gradient, whose norm is bounded."""
    run = FakeRun(model())
    moves = []

    class Clip(GradientClippingMonitor):
        def before_step(self, run, step):
            super().before_step(run, step)
            moves.append(torch.cat([value.grad.flatten() for value in step.parameters]).norm().item())

    run.train(Clip(max_norm=0.01, interval=2), batches(4))
    assert moves == pytest.approx([0.01] * 4, rel=1e-3)
    assert [scalars["gradient/clipped"] for _, scalars in run.logged] == [1.0, 1.0]
    with pytest.raises(ValueError, match="matches no parameter"):
        trained(GradientClippingMonitor(rules=[{"pattern": "backbone.*", "max_norm": 1.0}]))


def test_health_writes_norms_and_stops_at_what_is_not_finite(tmp_path):
    run = trained(GradientHealthMonitor(detail_interval=2), folder=tmp_path)
    assert [iteration for iteration, _ in run.logged] == [0, 1, 2, 3]
    lines = [json.loads(line) for line in (tmp_path / "gradient_health.jsonl").read_text().splitlines()]
    assert {line["iteration"] for line in lines if "iteration" in line} == {0, 2}
    assert (tmp_path / "gradient_health.png").stat().st_size > 0
    bad = [*batches(1), (torch.full((8, 3), torch.nan), torch.zeros(8, 1))]
    run = FakeRun(model(), tmp_path)
    with pytest.raises(FloatingPointError, match=r"iteration 1: 4 gradients are not finite: 0\.weight"):
        run.train(GradientHealthMonitor(), bad)
    assert all(value.isfinite().all() for value in weights(run))  # it never reached the weights
    run = FakeRun(model(), tmp_path)
    run.train(GradientHealthMonitor(stop_on_nonfinite=False), bad)
    assert "4 gradients are not finite" in run.warnings[0]


def test_frozen_layer_trains_when_its_time_comes():
    run = FakeRun(model())
    seen = []

    class Freeze(LayerFreezeMonitor):
        def after_iteration(self, run):
            seen.append(run.model[0].weight.detach().clone())

    first = run.model[0].weight.detach().clone()
    run.train(Freeze(frozen=[{"layers": ["0"], "until": 2}]), batches(3))
    assert torch.equal(seen[0], first)
    assert torch.equal(seen[1], first)
    assert not torch.equal(seen[2], first)
    assert run.infos[0].startswith("iteration 0: 2 parameters frozen (0.weight, 0.bias)")


def test_only_what_a_monitor_has_is_called():
    run = FakeRun(model())
    assert watch_steps(run, Monitor()) == []
    handles = watch_steps(run, GradientHealthMonitor())
    assert len(handles) == 2
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize(
    ("monitor", "options", "message"),
    [
        (WeightPenaltyMonitor, {"l1": -1.0}, "l1 is -1.0"),
        (WeightPenaltyMonitor, {"l1": 1.0, "form": "both"}, "form is 'both'; use one of gradient, proximal"),
        (WeightPenaltyMonitor, {"l1": 1.0, "interval": 0}, "interval is 0; it must be at least 1"),
        (GradientClippingMonitor, {"max_norm": 1.0, "interval": 0}, "interval is 0; it must be at least 1"),
        (LayerFreezeMonitor, {}, "nothing to do"),
    ],
)
def test_options_out_of_range_are_named(monitor, options, message):
    with pytest.raises(ValueError, match=message):
        monitor(**options)
