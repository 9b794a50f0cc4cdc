"""Gradient health. Oracle: norms in float64, one parameter at a time."""

import copy
import math
import warnings

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from cvplugins.monitors import GradientHealth


class Detector(nn.Module):
    """Nested blocks, an embedding, a parameter of the model itself, and one of each kind of idle parameter."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.backbone = nn.Sequential()
        self.backbone.add_module("stem", nn.Conv2d(3, 4, 3))
        self.backbone.add_module("layer1", nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
        self.head = nn.Linear(4, 2)
        self.unused = nn.Linear(2, 2, bias=False)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def fill(model):
    """Give every parameter but the unused and frozen ones a random gradient."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if not name.startswith(("unused", "frozen")):
            parameter.grad = torch.randn(parameter.shape, generator=generator)
    return model


def float64_norm(gradients):
    return math.sqrt(sum(gradient.double().square().sum().item() for gradient in gradients))


@pytest.fixture
def model():
    return fill(Detector())


def test_norms_per_block_and_in_total(model):
    report = GradientHealth(depth=2).observe(model, 7)
    blocks = {
        "scale": [model.scale],
        "backbone.stem": model.backbone.stem.parameters(),
        "backbone.layer1": model.backbone.layer1.parameters(),
        "head": model.head.parameters(),
    }
    expected = {block: float64_norm(x.grad for x in parameters) for block, parameters in blocks.items()}
    assert list(report.block_norms) == list(expected)
    assert report.block_norms == pytest.approx(expected, rel=1e-6)
    every = [x.grad for x in model.parameters() if x.grad is not None]
    assert report.total_norm == pytest.approx(float64_norm(every), rel=1e-6)
    assert (report.iteration, report.nonfinite, report.unused) == (7, (), ("unused.weight",))


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [
        (1, ["scale", "backbone", "head"]),
        (3, ["scale", "backbone.stem", "backbone.layer1.0", "backbone.layer1.1", "head"]),
    ],
)
def test_depth_sets_the_blocks(model, depth, blocks):
    assert list(GradientHealth(depth=depth).observe(model, 0).block_norms) == blocks


def test_named_parameters_and_wrapped_models_give_the_same(model):
    expected = GradientHealth().observe(model, 0)
    assert GradientHealth().observe(model.named_parameters(), 0) == expected
    assert GradientHealth().observe(nn.ModuleDict({"module": model}), 0) == expected


def test_names_scalars(model):
    monitor = GradientHealth(depth=1)
    report = monitor.observe(model, 0)
    assert monitor.scalars(report) == {
        "gradient/norm": report.total_norm,
        "gradient/norm/scale": report.block_norms["scale"],
        "gradient/norm/backbone": report.block_norms["backbone"],
        "gradient/norm/head": report.block_norms["head"],
    }


def test_divides_by_the_loss_scale(model):
    expected = GradientHealth().observe(model, 0)
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad *= 1024
    report = GradientHealth().observe(model, 0, scale=1024)
    assert report.total_norm == pytest.approx(expected.total_norm)
    assert report.block_norms == pytest.approx(expected.block_norms)


def test_observes_at_intervals(model):
    monitor = GradientHealth(interval=3)
    assert [monitor.observe(model, i) is not None for i in range(7)] == [True, False, False, True, False, False, True]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_names_nonfinite_gradients_and_only_these(model, value):
    model.backbone.layer1[1].weight.grad[2] = value
    model.head.bias.grad[0] = value
    report = GradientHealth().observe(model, 0)
    assert report.nonfinite == ("backbone.layer1.1.weight", "head.bias")
    assert not math.isfinite(report.total_norm)
    assert [block for block, norm in report.block_norms.items() if not math.isfinite(norm)] == [
        "backbone.layer1",
        "head",
    ]


def test_large_finite_gradients_are_finite(model):
    model.head.weight.grad.fill_(1e30)  # the square overflows in float32
    report = GradientHealth().observe(model, 0)
    assert report.nonfinite == ()
    assert report.block_norms["head"] == pytest.approx(1e30 * math.sqrt(8), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_gradients_are_accumulated_in_float32(dtype):
    parameter = nn.Parameter(torch.zeros(100, 100, dtype=dtype))
    parameter.grad = torch.full_like(parameter, 1024)
    report = GradientHealth().observe([("weight", parameter)], 0)
    assert report.total_norm == 102_400  # above the largest float16


def test_mixed_dtypes_keep_their_names():
    dtypes = [torch.float32, torch.float16, torch.float64, torch.bfloat16, torch.float32, torch.float64]
    parameters = []
    for size, dtype in enumerate(dtypes, start=1):
        parameter = nn.Parameter(torch.zeros(size, dtype=dtype))
        parameter.grad = torch.full_like(parameter, size)
        parameters.append((f"block{size}.weight", parameter))
    report = GradientHealth().observe(parameters, 0)
    assert report.block_norms == pytest.approx({f"block{n}": n * math.sqrt(n) for n in range(1, 7)})


def test_sparse_gradients_count_repeated_rows_once():
    embedding = nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1, 1, 3])).sum().backward()
    report = GradientHealth().observe(embedding, 0)
    assert report.total_norm == pytest.approx(math.sqrt(2 * 2**2 + 2 * 1**2))  # rows (2, 2) and (1, 1)


def test_zero_empty_and_absent_gradients():
    model = nn.Sequential(nn.Linear(2, 2), nn.Embedding(0, 3))
    assert GradientHealth().observe(model, 0).block_norms == {}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    report = GradientHealth().observe(model, 0)
    assert (report.total_norm, report.nonfinite, report.unused) == (0, (), ())


def test_remembers_the_first_failure_across_a_resume(model):
    monitor = GradientHealth()
    monitor.observe(model, 10)
    model.head.bias.grad[0] = math.nan
    monitor.observe(model, 11)
    state = copy.deepcopy(monitor.state_dict())
    resumed = GradientHealth()
    resumed.load_state_dict(state)
    model.scale.grad[0] = math.nan
    resumed.observe(model, 12)
    assert resumed.first_nonfinite == {"head.bias": 11, "scale": 12}
    assert monitor.first_nonfinite == {"head.bias": 11}


def test_observing_changes_nothing(model):
    before = copy.deepcopy([parameter.grad for parameter in model.parameters()])
    GradientHealth().observe(model, 0, scale=2)
    for old, parameter in zip(before, model.parameters(), strict=True):
        assert (old is None and parameter.grad is None) or torch.equal(old, parameter.grad)


class Operators(TorchDispatchMode):
    """Record the operators that run; those that read a value back are among them."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class Reads(TorchFunctionMode):
    """Record the methods that bring values to Python without an operator."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in ("tolist", "numpy", "__array__", "item", "cpu", "__float__", "__bool__", "__int__", "__index__"):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def test_reads_the_device_once(model):
    """On the CPU: one read, and no operator but those known to run without waiting for a GPU."""
    with Reads() as reads, Operators() as operators:
        GradientHealth().observe(model, 0)
    assert reads.seen == ["tolist"]
    assert set(operators.seen) <= {"_foreach_norm", "stack", "cat"}


@pytest.mark.gpu
def test_one_synchronisation_on_the_gpu(model):
    for parameter in model.cuda().parameters():
        if parameter.grad is not None:
            parameter.grad = parameter.grad.cuda()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            GradientHealth().observe(model, 0)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    # Not "synchronizing" alone: torch also warns, once a process, that this mode is a prototype.
    assert len([w for w in caught if "called a synchronizing" in str(w.message)]) == 1


@pytest.mark.parametrize("name", ["depth", "interval"])
def test_wrong_options_are_named(name):
    with pytest.raises(ValueError, match=f"{name} is 0; it must be at least 1"):
        GradientHealth(**{name: 0})
