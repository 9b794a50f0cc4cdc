"""SyncBatchNorm. Oracle: torch's batch norm in one process, in float64, on the joined batch."""

import copy
import pickle

import pytest
import torch
import torch.distributed as dist
from helpers import run_ranks
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from cvplugins.norm import SyncBatchNorm
from cvplugins.norm.sync_batch_norm import _JointBatchNorm

C = 3
LARGE = 10_000
# Options of the layer, shapes on up to four ranks, mean of the input.
CASES = {
    "even": ({}, [(2, C, 4, 5)] * 4, 0),
    "uneven": ({}, [(1, C, 7, 2), (4, C, 5, 5), (3, C, 2, 9), (2, C, 1, 1)], 0),
    "idle ranks": ({}, [(0, C, 4, 4), (2, C, 6, 4), (3, C, 0, 4), (1, C, 5, 5)], 0),
    "one value a rank": ({"eps": 0.1}, [(1, C)] * 4, 0),
    "one rank has all": ({}, [(0, C), (5, C), (0, C), (0, C)], 0),
    "nobody has any": ({}, [(0, C, 2, 2)] * 4, 0),
    "2d": ({}, [(3, C), (2, C), (5, C), (1, C)], 0),
    "3d": ({}, [(3, C, 4), (2, C, 7), (5, C, 1), (1, C, 2)], 0),
    "5d": ({}, [(1, C, 2, 3, 4), (2, C, 1, 2, 3), (1, C, 2, 2, 2), (3, C, 1, 1, 1)], 0),
    "large mean": ({"momentum": 1.0}, [(4, C, 4, 4)] * 4, LARGE),
    "cumulative": ({"momentum": None}, [(2, C, 3, 3)] * 4, 0),
    "no affine": ({"affine": False}, [(2, C, 3, 3)] * 4, 0),
    "no statistics": ({"track_running_stats": False}, [(2, C, 3, 3)] * 4, 0),
    "momentum and eps": ({"momentum": 0.7, "eps": 0.5}, [(2, C, 3, 3)] * 4, 0),
}
STEPS = 2


def batches(shapes, mean):
    """Return, per step and rank, the input and the factors that make the loss."""
    generator = torch.Generator().manual_seed(7)
    scale = torch.arange(1.0, C + 1)

    def make(shape, mean):
        noise = torch.randn(shape, generator=generator)
        if mean:  # the true mean is representable in float32, so that all errors are the layer's
            noise = (noise[::2] * 64).round().div(64).repeat_interleave(2, 0)
            noise[::2] *= -1
        return (noise.movedim(1, -1) * scale + mean).movedim(-1, 1).contiguous()

    return [
        [
            (make(shape, mean and mean + 2 * rank), torch.randn(shape, generator=generator))
            for rank, shape in enumerate(shapes)
        ]
        for _ in range(STEPS)
    ]


def make_layer(cls, options, **more):
    layer = cls(C, **options, **more)
    if layer.affine:
        layer.weight.data.copy_(torch.linspace(0.5, 2, C))
        layer.bias.data.copy_(torch.linspace(1, -1, C))
    return layer


def step(layer, input, factors):
    """Return what a training step computes, by name."""
    layer.zero_grad()
    input = input.clone().requires_grad_()
    output = layer(input)
    (output * factors).sum().backward()
    found = {"output": output.detach(), "input gradient": input.grad}
    found |= {f"{name} gradient": parameter.grad.clone() for name, parameter in layer.named_parameters()}
    return found | {name: buffer.clone() for name, buffer in layer.named_buffers()}


class Collectives(TorchDispatchMode):
    """Record every operator of torch's communication library."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d":
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def run_cases(group, rank, size):
    """Run the cases on the first ``size`` ranks."""
    found = {}
    for name, (options, shapes, mean) in CASES.items():
        layer = make_layer(SyncBatchNorm, options, process_group=group)
        for number, batch in enumerate(batches(shapes[:size], mean)):
            found[name, number] = step(layer, *batch[rank])
    return found


def count_collectives():
    layer, input = SyncBatchNorm(C), torch.randn(2, C, 4, 4, requires_grad=True)
    with Collectives() as forward:
        output = layer(input)
    with Collectives() as backward:
        output.sum().backward()
    with Collectives() as evaluation:
        layer.eval()(input)
    return forward.seen, backward.seen, evaluation.seen


def too_few_values():
    input = torch.randn(1 if dist.get_rank() == 2 else 0, C)
    layer = SyncBatchNorm(C)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        layer(input)
    return layer.num_batches_tracked.item()


def half_precision():
    """Return pairs of equal results and facts about dtype and layout."""
    found = {}
    input = torch.randn(2, C, 5, 4, generator=torch.Generator().manual_seed(dist.get_rank()))
    for dtype in (torch.bfloat16, torch.float16):
        half = input.to(dtype).requires_grad_()
        try:
            nn.BatchNorm2d(C)(half)
        except RuntimeError:  # torch 2.1 has no float16 batch norm on the CPU
            continue
        full = half.detach().float().requires_grad_()
        output, expected = make_layer(SyncBatchNorm, {})(half), make_layer(SyncBatchNorm, {})(full)
        factors = torch.arange(-4.0, 4.0).repeat(output.numel() // 8).view_as(output)  # exact in any precision
        (output.float() * factors).sum().backward()
        (expected * factors).sum().backward()
        whole = make_layer(SyncBatchNorm, {}).to(dtype)
        found[dtype] = (output, expected), (half.grad, full.grad), (whole(half), expected)
    with torch.autocast("cpu", torch.bfloat16):
        convolved = nn.Conv2d(C, C, 1)(input)
        found["autocast"] = (convolved.dtype, SyncBatchNorm(C)(convolved).dtype, nn.BatchNorm2d(C)(convolved).dtype)
    return found


def channels_last():
    input = torch.randn(2, C, 5, 4, generator=torch.Generator().manual_seed(dist.get_rank()))
    reference, strided = input.clone().requires_grad_(), input.to(memory_format=torch.channels_last).requires_grad_()
    outputs = [make_layer(SyncBatchNorm, {})(x) for x in (reference, strided)]
    for output in outputs:  # not of the squares, whose gradient batch norm makes zero
        (output * input.sin()).sum().backward()
    kept = [x.is_contiguous(memory_format=torch.channels_last) for x in (outputs[1], strided.grad)]
    return tuple(outputs), (reference.grad, strided.grad), kept


def network(norm):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(C, 4, 3), norm(4), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3), norm(5), nn.ReLU(inplace=True)
    )


def data_parallel():
    model = DistributedDataParallel(network(SyncBatchNorm))
    input = torch.randn(8, C, 9, 9, generator=torch.Generator().manual_seed(0))
    model(input.chunk(4)[dist.get_rank()]).square().mean().backward()
    return {name.removeprefix("module."): parameter.grad for name, parameter in model.named_parameters()}


def copied(group):
    layer = SyncBatchNorm(C, process_group=group)
    twin = copy.deepcopy(nn.ModuleList([layer, layer]))
    return twin[0] is twin[1], twin[0].process_group is group, twin[0].weight is not layer.weight


def everything():
    rank = dist.get_rank()
    found = {}
    for size in (2, 3, 4):
        group = dist.new_group(range(size)) if size < 4 else None
        if rank < size:
            found[size] = run_cases(group, rank, size)
        elif size == 3:
            layer = SyncBatchNorm(C, process_group=group)
            found["outside"] = layer(torch.arange(12.0).view(4, C)), nn.BatchNorm1d(C)(torch.arange(12.0).view(4, C))
    alone = [dist.new_group([r]) for r in range(4)][rank]
    found["alone"] = run_cases_alone(alone)
    for check in (count_collectives, too_few_values, half_precision, channels_last, data_parallel):
        found[check.__name__] = check()
    return found | {"copied": copied(alone)}


def run_cases_alone(group):
    options, shapes, mean = CASES["uneven"]
    layers = [make_layer(SyncBatchNorm, options, process_group=group), make_layer(nn.BatchNorm2d, options)]
    return [step(layer, *batches(shapes, mean)[0][1]) for layer in layers]


@pytest.fixture(scope="module")
def ranks():
    """What each of four ranks found; starting them once saves the time."""
    return run_ranks(everything, 4)


def join(tensors):
    """Join inputs of any sizes to one of shape (1, C, values)."""
    return torch.cat([x.movedim(1, 0).flatten(1) for x in tensors], 1).unsqueeze(0)


def joint_steps(name, size):
    """Return what one process computes from the joined batches, in float64."""
    options, shapes, mean = CASES[name]
    layer = make_layer(nn.BatchNorm1d, options).double()
    for batch in batches(shapes[:size], mean):
        inputs, factors = zip(*batch, strict=True)
        yield step(layer, join(inputs).double(), join(factors).double())


@pytest.mark.distributed
@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("name", CASES)
def test_equals_one_process_on_the_joined_batch(ranks, name, size):
    for number, expected in enumerate(joint_steps(name, size)):
        found = [ranks[r][size][name, number] for r in range(size)]
        assert all(each.keys() == expected.keys() for each in found)
        for key, value in expected.items():
            if key in ("output", "input gradient"):
                actual = join([each[key] for each in found])
            elif key.endswith("gradient"):
                actual = sum(each[key] for each in found)
            else:
                actual = found[0][key]
                assert all(torch.equal(actual, each[key]) for each in found)
            # torch normalises as x * a + b, which rounds x = 1e4 to 1e-3.
            limit = 2e-3 if (name, key) == ("large mean", "output") else 1e-6
            torch.testing.assert_close(actual.double(), value.double(), atol=limit, rtol=1e-6)


@pytest.mark.distributed
def test_one_collective_each_way_and_none_in_evaluation(ranks):
    for found in ranks:
        forward, backward, evaluation = found["count_collectives"]
        assert len(forward) == len(backward) == 1
        assert not evaluation


@pytest.mark.distributed
def test_one_value_in_all_is_an_error_on_every_rank(ranks):
    assert [found["too_few_values"] for found in ranks] == [0] * 4  # the ranks came back, and counted no batch


@pytest.mark.distributed
def test_alone_or_outside_of_the_group_it_is_plain_batch_norm(ranks):
    torch.testing.assert_close(*ranks[3]["outside"], rtol=0, atol=0)
    for found in ranks:
        mine, plain = found["alone"]
        torch.testing.assert_close(mine, plain, rtol=0, atol=0)


@pytest.mark.distributed
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_float32_statistics(ranks, dtype):
    if dtype not in ranks[0]["half_precision"]:
        pytest.skip(f"needs torch 2.2 or newer: no {dtype} batch norm on the CPU before")
    for found in ranks:
        pairs = found["half_precision"][dtype]
        assert all(half.dtype == dtype for half, _ in pairs)
        for half, full in pairs[:2]:  # the same values in float32, rounded once
            torch.testing.assert_close(half, full.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-3)
        rounded_weights, full = pairs[2]
        torch.testing.assert_close(rounded_weights.float(), full, rtol=0.02, atol=0.02)
        assert found["half_precision"]["autocast"] == (torch.bfloat16,) * 3


@pytest.mark.distributed
def test_channels_last_stays(ranks):
    for found in ranks:
        outputs, gradients, kept = found["channels_last"]
        torch.testing.assert_close(*outputs, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)
        assert kept == [True, True]


@pytest.mark.distributed
def test_data_parallel_training_equals_one_process(ranks):
    model = network(nn.BatchNorm2d).double()
    model(torch.randn(8, C, 9, 9, generator=torch.Generator().manual_seed(0)).double()).square().mean().backward()
    for found in ranks:
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(
                found["data_parallel"][name].double(), parameter.grad, rtol=1e-5, atol=1e-6, msg=name
            )


@pytest.mark.distributed
def test_a_copy_belongs_to_the_same_group(ranks):
    assert all(found["copied"] == (True, True, True) for found in ranks)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(4, C), (2, C, 3), (2, C, 2, 2)])
def test_gradient_equals_finite_differences(shape, affine):
    generator = torch.Generator().manual_seed(0)

    def tensor(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)

    weight, bias = (tensor(C), tensor(C)) if affine else (None, None)
    assert torch.autograd.gradcheck(lambda *x: _JointBatchNorm.apply(*x, 1e-5, None)[0], (tensor(*shape), weight, bias))


@pytest.mark.parametrize(
    "options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}, {"eps": 0.5}]
)
def test_without_a_process_group_it_is_plain_batch_norm(options):
    mine, plain = make_layer(SyncBatchNorm, options), make_layer(nn.BatchNorm2d, options)
    for (input, factors), *_ in batches([(2, C, 4, 4)], 0):
        torch.testing.assert_close(step(mine, input, factors), step(plain, input, factors), rtol=0, atol=0)
    torch.testing.assert_close(mine.eval()(input), plain.eval()(input), rtol=0, atol=0)


def test_state_is_that_of_batch_norm():
    mine, plain = SyncBatchNorm(C), nn.BatchNorm2d(C)
    plain(torch.randn(4, C, 2, 2))
    mine.load_state_dict(plain.state_dict())
    for twin in (mine, copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))):
        assert list(twin.state_dict()) == list(plain.state_dict())
        torch.testing.assert_close(dict(twin.state_dict()), dict(plain.state_dict()), rtol=0, atol=0)
    nn.BatchNorm2d(C).load_state_dict(mine.state_dict())


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="expected at least 2D input"):
        SyncBatchNorm(C)(torch.zeros(C))
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        SyncBatchNorm(C)(torch.zeros(1, C))
