"""CARAFE against the loop of mmcv's CUDA kernel in float64, gradients by autograd through it."""

import pytest
import torch
from ops.conv_formulas import carafe as formula
from torch.testing import assert_close

from cvplugins.ops.carafe import carafe, carafe_backward

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]

# batch, channels, map, kernel, groups, scale
SHAPES = {
    "usual": (1, 3, (3, 4), 5, 1, 2),
    "grouped": (2, 4, (2, 3), 3, 2, 2),
    "larger_than_the_map": (1, 2, (1, 2), 5, 1, 3),
    "same_size": (1, 2, (3, 2), 3, 2, 1),
    "one_tap": (1, 2, (2, 2), 1, 1, 2),
}


def tensors_of(name, dtype=torch.float64):
    batch, channels, (height, width), kernel, groups, scale = SHAPES[name]
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(batch, channels, height, width, dtype=torch.float64, generator=generator)
    masks = torch.rand(
        batch, groups * kernel**2, height * scale, width * scale, dtype=torch.float64, generator=generator
    )
    options = {"kernel_size": kernel, "group_size": groups, "scale_factor": scale}
    return features.to(dtype), masks.to(dtype), options


def expected(features, masks, options):
    leaves = features.double().requires_grad_(), masks.double().requires_grad_()
    output = formula(*leaves, **options)
    grad_output = torch.randn(output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    return output.detach(), grad_output, torch.autograd.grad(output, leaves, grad_output)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", SHAPES)
def test_equals_the_formula(name, device):
    features, masks, options = tensors_of(name)
    output, grad_output, gradients = expected(features, masks, options)
    features, masks = features.to(device), masks.to(device)
    assert_close(carafe(features, masks, **options).cpu(), output)
    ours = carafe_backward(grad_output.to(device), features, masks, **options)
    assert_close(tuple(gradient.cpu() for gradient in ours), gradients)


class Carafe(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, masks, options):
        ctx.save_for_backward(features, masks)
        ctx.options = options
        return carafe(features, masks, **options)

    @staticmethod
    def backward(ctx, grad_output):
        return *carafe_backward(grad_output, *ctx.saved_tensors, **ctx.options), None


@pytest.mark.parametrize("name", ["grouped", "larger_than_the_map"])
def test_gradients_are_those_of_finite_differences(name):
    features, masks, options = tensors_of(name)
    assert torch.autograd.gradcheck(Carafe.apply, (features.requires_grad_(), masks.requires_grad_(), options))


def test_pieces_give_the_same(monkeypatch):
    features, masks, options = tensors_of("usual")
    grad_output = torch.randn(1, 3, 6, 8, dtype=torch.float64)
    whole = carafe(features, masks, **options), *carafe_backward(grad_output, features, masks, **options)
    monkeypatch.setitem(carafe.__globals__, "_PATCH_ELEMENTS", 1)  # one row at a time
    pieces = carafe(features, masks, **options), *carafe_backward(grad_output, features, masks, **options)
    assert_close(pieces, whole)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_inputs_and_results_only(dtype, device):
    features, masks, options = tensors_of("grouped", dtype)
    output, grad_output, _ = expected(features, masks, options)
    grad_output = grad_output.to(dtype)
    wide = carafe_backward(grad_output.double(), features.double(), masks.double(), **options)
    features, masks = features.to(device), masks.to(device)
    ours = carafe(features, masks, **options), *carafe_backward(grad_output.to(device), features, masks, **options)
    for found, reference in zip(ours, (output, *wide), strict=True):
        assert found.dtype == dtype
        assert_close(found.cpu().double(), reference, rtol=torch.finfo(dtype).eps, atol=1e-5)


def test_autocast_does_not_round():
    features, masks, options = tensors_of("grouped", torch.float32)
    grad_output = torch.ones(2, 4, 4, 6)
    plain = carafe(features, masks, **options), *carafe_backward(grad_output, features, masks, **options)
    with torch.autocast("cpu", torch.bfloat16):
        inside = carafe(features, masks, **options), *carafe_backward(grad_output, features, masks, **options)
    assert all(torch.equal(one, other) for one, other in zip(inside, plain, strict=True))


def test_memory_format_does_not_matter():
    features, masks, options = tensors_of("grouped")
    _, grad_output, _ = expected(features, masks, options)
    plain = carafe(features, masks, **options), *carafe_backward(grad_output, features, masks, **options)
    last = [tensor.to(memory_format=torch.channels_last) for tensor in (grad_output, features, masks)]
    assert_close((carafe(*last[1:], **options), *carafe_backward(*last, **options)), plain)


@pytest.mark.parametrize("shape", [(0, 4, 2, 3), (1, 4, 0, 3), (1, 4, 2, 0)])
def test_no_pixels(shape):
    features, masks = torch.ones(shape), torch.ones(shape[0], 9, shape[2] * 2, shape[3] * 2)
    options = {"kernel_size": 3, "group_size": 1, "scale_factor": 2}
    output = carafe(features, masks, **options)
    assert output.shape == (*shape[:2], shape[2] * 2, shape[3] * 2)
    of_features, of_masks = carafe_backward(output, features, masks, **options)
    assert (of_features.shape, of_masks.shape) == (features.shape, masks.shape)


def test_masks_that_do_not_fit_are_refused():
    features, masks, options = tensors_of("usual")
    with pytest.raises(ValueError, match=r"masks \(1, 25, 6, 7\) do not fit .* expected \(1, 25, 6, 8\)"):
        carafe(features, masks[..., :7], **options)
