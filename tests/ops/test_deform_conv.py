"""Deformable convolution against the formula of mmcv's kernel in float64, gradients by autograd through it."""

import pytest
import torch
from ops.cases_deform_conv import GEOMETRIES, inputs_of, options_of
from ops.conv_formulas import deform_conv as formula
from torch.testing import assert_close

from cvplugins.ops.deform_conv import ConvGeometry, deform_conv2d, deform_conv2d_backward

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def tensors_of(geometry, modulated, dtype=torch.float64):
    arrays = inputs_of(geometry, modulated)
    return {name: torch.from_numpy(array).to(dtype) for name, array in arrays.items()}


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def geometry_of(name):
    options = options_of(name)
    spatial = [pair(options[key]) for key in ("stride", "padding", "dilation")]
    return ConvGeometry(*spatial, options["groups"], options["deform_groups"])


def expected(tensors, geometry, grad_output=None):
    """Return output, the output's random gradient, and the gradients by name."""
    leaves = {name: tensor.double().requires_grad_() for name, tensor in tensors.items()}
    options = {name: getattr(geometry, name) for name in ("stride", "padding", "dilation", "groups", "offset_groups")}
    output = formula(**leaves, **options)
    grad_output = torch.randn(output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(output, list(leaves.values()), grad_output)
    return output.detach(), grad_output, dict(zip(leaves, gradients, strict=True))


def computed(tensors, geometry, grad_output):
    output = deform_conv2d(**tensors, geometry=geometry)
    inputs = {name: tensor for name, tensor in tensors.items() if name != "bias"}
    gradients = deform_conv2d_backward(grad_output.to(output), **inputs, geometry=geometry)._asdict()
    return output, {name: gradients[name] for name in tensors}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_equals_the_formula(name, modulated, device):
    tensors, geometry = tensors_of(name, modulated), geometry_of(name)
    output, grad_output, gradients = expected(tensors, geometry)
    ours, our_gradients = computed({key: tensor.to(device) for key, tensor in tensors.items()}, geometry, grad_output)
    assert_close(ours.cpu(), output)
    for key, gradient in gradients.items():
        assert_close(our_gradients[key].cpu(), gradient, msg=lambda message, key=key: f"{key}: {message}")


def test_an_offset_of_a_point_just_outside_has_no_gradient():
    """By hand: one pixel of value 5, seen by the middle tap; autograd through torchvision gives others a slope."""
    image, offset, weight = torch.full((1, 1, 1, 1), 5.0), torch.zeros(1, 18, 1, 1), torch.ones(1, 1, 3, 3)
    padded = ConvGeometry(padding=(1, 1))
    gradients = deform_conv2d_backward(torch.ones(1, 1, 1, 1), image, offset, weight, geometry=padded)
    slopes = torch.zeros(9, 2)
    slopes[4] = -5  # towards larger rows or columns the pixel fades
    assert_close(gradients.offset.view(9, 2), slopes)
    offset.requires_grad_()
    deform_conv2d(image, offset, weight, geometry=padded).backward()
    assert offset.grad.view(9, 2).count_nonzero() > slopes.count_nonzero()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_inputs_and_results_only(dtype, device):
    rounded = tensors_of("strided", True, dtype)
    geometry = geometry_of("strided")
    output, grad_output, _ = expected(rounded, geometry)
    grad_output = grad_output.to(dtype)
    ours, our_gradients = computed(
        {key: tensor.to(device) for key, tensor in rounded.items()}, geometry, grad_output.to(device)
    )
    wide, wide_gradients = computed({key: tensor.double() for key, tensor in rounded.items()}, geometry, grad_output)
    assert ours.dtype == dtype
    eps = torch.finfo(dtype).eps
    assert_close(ours.cpu().double(), output, rtol=eps, atol=1e-5)
    for key, gradient in wide_gradients.items():
        assert our_gradients[key].dtype == dtype
        assert_close(our_gradients[key].cpu().double(), gradient, rtol=eps, atol=1e-5)
    assert_close(wide, output)


def test_autocast_does_not_round():
    tensors, geometry = tensors_of("grouped", True, torch.float32), geometry_of("grouped")
    _, grad_output, _ = expected(tensors, geometry)
    plain, gradients = computed(tensors, geometry, grad_output)
    with torch.autocast("cpu", torch.bfloat16):
        inside, inside_gradients = computed(tensors, geometry, grad_output)
    assert torch.equal(inside, plain)
    assert all(torch.equal(inside_gradients[key], gradient) for key, gradient in gradients.items())


def test_memory_format_does_not_matter():
    tensors, geometry = tensors_of("grouped", True), geometry_of("grouped")
    _, grad_output, _ = expected(tensors, geometry)
    plain = computed(tensors, geometry, grad_output)
    strided = {
        key: tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor.repeat_interleave(2)[::2]
        for key, tensor in tensors.items()
    }
    assert not strided["input"].is_contiguous()
    other = computed(strided, geometry, grad_output.to(memory_format=torch.channels_last))
    assert_close(other, plain)


@pytest.mark.parametrize("modulated", [False, True])
def test_no_images(modulated):
    tensors = tensors_of("padded", modulated)
    none = {key: tensor if key in ("weight", "bias") else tensor[:0] for key, tensor in tensors.items()}
    geometry = geometry_of("padded")
    output, gradients = computed(none, geometry, torch.zeros(0, 4, 4, 5))
    assert output.shape == (0, 4, 4, 5)
    assert gradients["input"].shape == none["input"].shape
    assert gradients["weight"].abs().sum() == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_offsets_of_a_diverged_network_see_zeros(value):
    """Limiting case: such a point lies outside of the map; torchvision itself ends the process at a NaN."""
    tensors, geometry = tensors_of("padded", True), geometry_of("padded")
    _, grad_output, _ = expected(tensors, geometry)
    far = tensors | {"offset": tensors["offset"].clone()}
    far["offset"][:, 8:10] = 1e6
    output, gradients = computed(far, geometry, grad_output)
    far["offset"][:, 8:10] = value
    other, other_gradients = computed(far, geometry, grad_output)
    assert_close(other, output)
    for key, gradient in gradients.items():
        assert_close(other_gradients[key], gradient)


def test_shapes_that_do_not_fit_are_refused():
    tensors = tensors_of("padded", False)
    with pytest.raises(RuntimeError, match="offset"):
        deform_conv2d(**(tensors | {"offset": tensors["offset"][:, :4]}), geometry=geometry_of("padded"))
