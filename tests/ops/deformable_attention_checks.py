"""What every implementation of multi-scale deformable attention has to pass; the importing module says which one runs.

Oracles: ``grid_sample`` in float64 with the arguments as they are rounded, and the source of the CUDA operator.
"""

import pytest
import torch
from ops.deformable_attention_cases import (
    SIZES,
    arguments,
    border_arguments,
    cuda_source,
    formula,
    output_and_gradients,
)

from cvplugins.ops.deformable_attention import (
    deformable_attention_backward,
    deformable_attention_forward,
    multi_scale_deformable_attention,
)

# Of the largest number of a result: a few times the rounding of the type.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def assert_same(found, expected, tolerance):
    assert found.shape == expected.shape
    scale = expected.abs().nan_to_num(0, 0, 0).max().item() if expected.numel() else 0.0
    torch.testing.assert_close(
        found.to(expected.dtype), expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True
    )


def compare(args, tolerance):
    """Compare values and gradients with the formula."""
    found, gradients, _ = output_and_gradients(multi_scale_deformable_attention, args)
    assert found.dtype == args[0].dtype
    expected, expected_gradients, _ = output_and_gradients(formula, args)
    assert_same(found, expected, tolerance)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert gradient.dtype == expected_gradient.dtype  # that of the argument
        assert_same(gradient, expected_gradient, tolerance)


@pytest.mark.parametrize("size", SIZES)
def test_every_size(size):
    compare(arguments(SIZES[size]), TOLERANCE[torch.float64])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_every_type(dtype):
    compare(arguments(SIZES["ordinary"], dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_types_are_mixed_as_autocast_mixes_them(dtype):
    value, shapes, starts, locations, weights = arguments(SIZES["ordinary"], torch.float32)
    compare((value.to(dtype), shapes, starts, locations, weights), TOLERANCE[dtype])


def test_many_halves_are_summed_in_float32():
    """1,000 queries look at the same pixel: in float16 the sum of their gradients, 1 each, would be 1000 at most."""
    value = torch.zeros(1, 1, 1, 8, dtype=torch.float16, requires_grad=True)
    locations = torch.full((1, 3000, 1, 1, 1, 2), 0.5, dtype=torch.float16)
    weights = torch.ones(1, 3000, 1, 1, 1, dtype=torch.float16)
    output = multi_scale_deformable_attention(value, torch.tensor([[1, 1]]), torch.tensor([0]), locations, weights)
    output.sum().backward()
    assert value.grad.flatten().tolist() == [3000.0] * 8


def test_borders():
    compare(border_arguments(first=-1), TOLERANCE[torch.float64])


@pytest.mark.parametrize("border", [False, True])
def test_the_cuda_operator_computes_the_same(border):
    """Save for the slope exactly one pixel before the first, where there are two: it takes 0, we the other."""
    args = border_arguments(first=0) if border else arguments(SIZES["odd numbers"])
    found, gradients, outer = output_and_gradients(multi_scale_deformable_attention, args)
    expected, expected_gradients = cuda_source(*args, outer)
    assert_same(found, expected, 1e-12)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert_same(gradient, expected_gradient, 1e-12)


def test_far_outside_there_is_nothing():
    value, shapes, starts, locations, weights = arguments(SIZES["ordinary"], torch.float32)
    locations[0, :, :, :, :, 0], locations[1, :, :, :, :, 1] = 1e30, -1e30
    output, gradients, _ = output_and_gradients(
        multi_scale_deformable_attention, (value, shapes, starts, locations, weights)
    )
    assert not any(each.any() for each in (output, *gradients))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_location_that_is_no_number_spoils_its_query_and_head_only(number):
    args = arguments(SIZES["ordinary"])
    expected, expected_gradients, _ = output_and_gradients(formula, args)
    spoiled = args[3].clone()
    spoiled[1, 3, 0, 1, 0, 0] = number
    without = args[4].clone()
    without[1, 3, 0, 1, 0] = 0  # the sample adds nothing to the gradient of the value
    expected_value = output_and_gradients(formula, (*args[:4], without))[1][0]
    found, gradients, _ = output_and_gradients(multi_scale_deformable_attention, (*args[:3], spoiled, args[4]))
    found, expected = (each.view(2, 7, 2, 8) for each in (found, expected))
    assert found[1, 3, 0].isnan().all()
    others = torch.ones(2, 7, 2, dtype=torch.bool)
    others[1, 3, 0] = False
    assert_same(found[others], expected[others], 1e-12)
    assert_same(gradients[0], expected_value, 1e-12)
    for gradient, expected_gradient in zip(gradients[1:], expected_gradients[1:], strict=True):
        assert_same(gradient[others], expected_gradient[others], 1e-12)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_pixel_that_is_no_number_spoils_what_looks_at_it_only(number):
    value, *rest = arguments(SIZES["ordinary"])
    value[0, 0, 0, 3], value[1, 25, 1, 2] = number, number  # the first and the last pixel: what is masked reads neither
    args = (value, *rest)
    found, gradients, _ = output_and_gradients(multi_scale_deformable_attention, args)
    expected, expected_gradients, _ = output_and_gradients(formula, args)
    assert not expected.isfinite().all()
    assert_same(found, expected, 1e-12)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        finite = expected_gradient.isfinite()
        assert torch.equal(gradient.isfinite(), finite)
        assert_same(gradient[finite], expected_gradient[finite], 1e-12)


def test_arguments_need_not_be_contiguous():
    value, shapes, starts, locations, weights = arguments(SIZES["ordinary"])
    scattered = [
        torch.stack([each, each], -1).transpose(0, 1).contiguous().transpose(0, 1)[..., 0]
        for each in (value, locations, weights)
    ]
    assert not any(each.is_contiguous() for each in scattered)
    shapes, starts = shapes.t().contiguous().t(), torch.stack([starts, starts], 1)[:, 0]
    compare((scattered[0], shapes, starts, *scattered[1:]), TOLERANCE[torch.float64])


def test_sizes_may_be_of_32_bits():
    value, shapes, starts, locations, weights = arguments(SIZES["ordinary"])
    compare((value, shapes.int(), starts.int(), locations, weights), TOLERANCE[torch.float64])


def test_the_derivative_is_that_of_the_values():
    """Oracle: finite differences, away from the pixels, where there is no derivative."""
    value, shapes, starts, locations, weights = arguments((1, ((2, 3),), 1, 2, 2, 1))
    position = locations * shapes.flip(1)[:, None] - 0.5
    assert (position - position.round()).abs().min() > 1e-3
    inputs = [each.requires_grad_() for each in (value, locations, weights)]
    torch.autograd.gradcheck(lambda v, x, w: multi_scale_deformable_attention(v, shapes, starts, x, w), inputs)


def test_the_two_halves_are_what_the_whole_computes():
    """Oracle: autograd through the whole."""
    args = arguments(SIZES["ordinary"], torch.float32)
    expected, gradients, outer = output_and_gradients(multi_scale_deformable_attention, args)
    assert torch.equal(deformable_attention_forward(*args), expected)
    for found, gradient in zip(deformable_attention_backward(outer.float(), *args), gradients, strict=True):
        torch.testing.assert_close(found, gradient)
