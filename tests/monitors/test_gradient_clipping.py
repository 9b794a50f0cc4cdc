"""Gradient clipping. Oracles: torch's functions on copies, timm's where it is installed, a float64 loop for AGC."""

import copy
import math

import pytest
import torch
from helpers import needs_torch
from torch import nn

from cvplugins.monitors import ClippingRule, GradientClipping, Step
from cvplugins.monitors.gradient_clipping import adaptive_clip_


class Net(nn.Module):
    """Every number of dimensions that a parameter has, and one without a gradient."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv1d(2, 3, 2))
        self.head = nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.zero = nn.Parameter(torch.zeros(2, 3))
        self.unused = nn.Linear(2, 2)


@pytest.fixture
def model():
    return fill(Net())


def fill(model, size=1.0):
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if not name.startswith("unused"):
            parameter.grad = size * torch.randn(parameter.shape, generator=generator)
    return model


def gradients(model):
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def assert_same(model, other, **tolerance):
    torch.testing.assert_close(gradients(model), gradients(other), **(tolerance or {"rtol": 0, "atol": 0}))


@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_by_norm(model, max_norm, norm_type):
    other = copy.deepcopy(model)
    fill(other)
    clipping = GradientClipping([ClippingRule(max_norm=max_norm, norm_type=norm_type)])
    clipping.clip_(model.named_parameters())
    norm = nn.utils.clip_grad_norm_(other.parameters(), max_norm, norm_type).item()
    assert_same(model, other)
    report = clipping.report()
    assert report.norm["*"] == pytest.approx(norm, rel=1e-6)
    assert report.share["*"] == float(norm > max_norm)


@pytest.mark.parametrize("max_value", [0.3, 1e6])
def test_by_value(model, max_value):
    other = fill(copy.deepcopy(model))
    clipping = GradientClipping([ClippingRule(max_value=max_value)])
    clipping.clip_(model.named_parameters())
    nn.utils.clip_grad_value_(other.parameters(), max_value)
    assert_same(model, other)
    assert clipping.report().share["*"] == float(max_value < 1)


def slow_agc(parameter, gradient, clip_factor, eps):
    """The paper's equation (3), one unit at a time, in float64."""
    weights, values = parameter.double(), gradient.double().clone()
    units = [...] if weights.ndim <= 1 else range(len(weights))
    for unit in units:
        limit = clip_factor * max(weights[unit].norm().item(), eps)
        norm = values[unit].norm().item()
        if norm > limit:
            values[unit] = values[unit] * limit / norm
    return values


@pytest.mark.parametrize("clip_factor", [0.01, 0.16, 1.5])
@pytest.mark.parametrize("eps", [1e-3, 0.5])
def test_adaptive(model, clip_factor, eps):
    expected = {
        name: slow_agc(value.detach(), value.grad, clip_factor, eps)
        for name, value in model.named_parameters()
        if value.grad is not None
    }
    clipping = GradientClipping([ClippingRule(clip_factor=clip_factor, eps=eps)])
    clipping.clip_(model.named_parameters())
    torch.testing.assert_close(gradients(model), expected, rtol=1e-5, atol=1e-9, check_dtype=False)
    assert clipping.report().share["*"] == 1


@pytest.mark.parametrize("clip_factor", [0.01, 0.16, 1.5])
def test_adaptive_agrees_with_timm(model, clip_factor):
    agc = pytest.importorskip("timm.utils.agc", reason="timm is not installed")
    other = fill(copy.deepcopy(model))
    adaptive_clip_(model.parameters(), clip_factor)
    agc.adaptive_clip_grad(other.parameters(), clip_factor)
    assert_same(model, other, rtol=1e-6, atol=0)


def test_adaptive_leaves_small_and_zero_gradients_alone(model):
    fill(model, 1e-9)
    model.head.weight.grad.zero_()
    before = copy.deepcopy(gradients(model))
    assert not adaptive_clip_(model.parameters(), 0.01)
    torch.testing.assert_close(gradients(model), before, rtol=0, atol=0)


def test_adaptive_in_half_precision():
    parameter = nn.Parameter(torch.full((2, 1000), 10.0, dtype=torch.float16))
    parameter.grad = torch.full_like(parameter, 3e4)  # the norm overflows in float16
    adaptive_clip_([parameter], 0.1)
    torch.testing.assert_close(parameter.grad, torch.full_like(parameter, 1.0), rtol=1e-3, atol=0)


def test_each_group_follows_the_first_rule_that_matches(model):
    other = fill(copy.deepcopy(model))
    rules = [
        ClippingRule("backbone.1.*"),  # left alone
        ClippingRule("backbone.*", max_norm=0.5),
        ClippingRule("head.*", max_value=0.1),
    ]
    clipping = GradientClipping(rules)
    clipping.clip_(model.named_parameters())
    nn.utils.clip_grad_norm_([*other.backbone[0].parameters(), *other.backbone[2].parameters()], 0.5)
    nn.utils.clip_grad_value_(other.head.parameters(), 0.1)
    assert_same(model, other)
    report = clipping.report()
    assert report.share == {"backbone.*": 1, "head.*": 1}
    assert list(report.scalars()) == [
        "gradient/clipped/backbone.*",
        "gradient/clipped/head.*",
        "gradient/norm_before_clipping/backbone.*",
    ]


def test_assigns_names_and_refuses_a_rule_without_any(model):
    names = [name for name, _ in model.named_parameters()]
    clipping = GradientClipping([ClippingRule("head.*", max_norm=1), ClippingRule("backbne.*", max_norm=1)])
    with pytest.raises(ValueError, match=r"clipping rule 'backbne.\*' matches no parameter .*they are scale, zero"):
        clipping.assign(names)
    assert GradientClipping([ClippingRule("head.*", max_norm=1)]).assign(names) == {
        "head.*": ["head.weight", "head.bias"]
    }


def test_reports_how_often(model):
    """Sizes that are and are not clipped, counted by hand."""
    clipping = GradientClipping([ClippingRule(max_norm=1.0)])
    assert clipping.report() is None
    for size in (1.0, 1e-3, 1.0, 1e-3, 1e-3):
        clipping.clip_(fill(model, size).named_parameters())
    report = clipping.report()
    assert (report.steps, report.share["*"]) == (5, pytest.approx(0.4))
    assert clipping.report() is None


def test_never_clips_a_healthy_run():
    clipping = GradientClipping([ClippingRule(max_norm=10.0)])
    model = nn.Linear(4, 1)
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(500):
        model(torch.randn(8, 4)).square().mean().backward()
        clipping.clip_(model.named_parameters())
        sgd.step()
        sgd.zero_grad()
    assert clipping.report().share["*"] == 0


def test_state_survives_a_resume(model):
    straight, killed = (GradientClipping([ClippingRule(max_norm=1.0)]) for _ in range(2))
    for clipping in (straight, killed):
        clipping.clip_(fill(model, 1.0).named_parameters())
    resumed = GradientClipping([ClippingRule(max_norm=1.0)])
    resumed.load_state_dict(copy.deepcopy(killed.state_dict()))
    for clipping in (straight, resumed):
        clipping.clip_(fill(model, 1e-3).named_parameters())
    assert resumed.report() == straight.report()


def test_clipping_does_not_read_the_device(model, monkeypatch):
    clipping = GradientClipping(
        [
            ClippingRule("backbone.*", max_norm=1.0),
            ClippingRule("head.*", max_value=1.0),
            ClippingRule("*", clip_factor=0.1),
        ]
    )
    reads = []
    for name in ("item", "tolist", "__bool__", "__float__", "cpu", "numpy"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda self, *a, original=original, name=name: (reads.append(name), original(self))[1]
        )
    clipping.clip_(model.named_parameters())
    assert reads == []
    clipping.report()
    assert reads == ["tolist"]


def test_void_steps_do_not_count(model):
    clipping = GradientClipping([ClippingRule(max_norm=1.0)])
    clipping.clip_(fill(model).named_parameters(), is_void=torch.tensor(1.0))
    clipping.clip_(fill(model).named_parameters(), is_void=torch.tensor(0.0))
    assert clipping.report().steps == 1


@needs_torch(2, 3, "no GradScaler for the CPU before")
@pytest.mark.parametrize("fused", [False, True])
def test_amp_gives_the_same_step_as_no_amp(fused):
    """Scaled by 1024, clipped in the step's pre-hook: the weights are those of clipping without a scaler."""
    results = []
    for scale in (None, 1024.0):
        torch.manual_seed(0)
        model = nn.Linear(4, 2)
        adam = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
        clipping = GradientClipping([ClippingRule(max_norm=0.1)])

        def clip(optimizer, *_, clipping=clipping, model=model):
            step = Step(optimizer)
            step.unscale()
            clipping.clip_(model.named_parameters(), step.overflow)

        adam.register_step_pre_hook(clip)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        for seed in range(3):
            loss = model(torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))).square().mean()
            scaler.scale(loss).backward()
            scaler.step(adam)
            scaler.update()
            adam.zero_grad()
        results.append((copy.deepcopy(model.state_dict()), clipping.report()))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-6, atol=1e-7)
    assert results[0][1].share == results[1][1].share == {"*": 1.0}
    assert results[0][1].norm["*"] == pytest.approx(results[1][1].norm["*"], rel=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ClippingRule(max_norm=1, max_value=1),
            "has max_norm and max_value; give one of max_norm, max_value, cl",
        ),
        (lambda: ClippingRule(max_norm=0), "max_norm of rule '\\*' is 0; it must be above 0"),
        (lambda: ClippingRule(clip_factor=-1), "clip_factor of rule"),
        (lambda: ClippingRule(max_norm=math.nan), "is nan; it must be above 0"),
        (lambda: ClippingRule(max_norm=1, norm_type=0), "norm_type of rule"),
        (lambda: GradientClipping([]), "nothing would be clipped; give a rule one of max_norm, max_value, clip_factor"),
        (lambda: GradientClipping([ClippingRule("a")]), "nothing would be clipped"),
        (lambda: GradientClipping([ClippingRule(max_norm=1)] * 2), "two rules have the pattern '\\*'"),
    ],
)
def test_wrong_options_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
