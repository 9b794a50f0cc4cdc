"""The Triton kernels in Triton's interpreter, on the CPU; ``test_deformable_attention_kernels.py`` starts it."""

import numpy as np
import pytest
import torch
import triton.language as tl
from ops.deformable_attention_cases import SIZES, arguments, output_and_gradients
from ops.deformable_attention_checks import *  # noqa: F403 - its tests run here, with Triton
from ops.deformable_attention_checks import TOLERANCE, compare

from cvplugins.ops import deformable_attention, deformable_attention_kernels, deformable_attention_torch
from cvplugins.ops.deformable_attention import multi_scale_deformable_attention


def test_triton_is_what_runs_here():
    assert deformable_attention._kernels(torch.zeros(1)) is deformable_attention_kernels


@pytest.fixture
def sector_options(monkeypatch):
    """Take the options of GPUs that add no vectors atomically."""
    options = deformable_attention_kernels.options_of
    deformable_attention_kernels._tuned.cache_clear()
    monkeypatch.setattr(
        deformable_attention_kernels,
        "options_of",
        lambda kernel, padded, points, adds_vectors: options(kernel, padded, points, adds_vectors=False),
    )
    yield options
    deformable_attention_kernels._tuned.cache_clear()


@pytest.mark.parametrize("size", ["channels that are no power of two", "more queries than a program takes"])
def test_channels_are_taken_by_sectors_too(size, sector_options):
    assert sector_options(deformable_attention_kernels.backward_kernel, 32, 4, adds_vectors=False)[0][0]["AT_ONCE"] == 8
    compare(arguments(SIZES[size]), TOLERANCE[torch.float64])


@pytest.mark.parametrize("adds_vectors", [False, True])
@pytest.mark.parametrize("padded", [4, 8, 32, 1024])
@pytest.mark.parametrize("points", [1, 4, 5])
def test_every_option_fits_the_kernel(padded, points, adds_vectors):
    """Sizes are powers of two, and the coordinates of all points fit along the channels."""
    for kernel in (deformable_attention_kernels.forward_kernel, deformable_attention_kernels.backward_kernel):
        options = deformable_attention_kernels.options_of(kernel, padded, points, adds_vectors=adds_vectors)
        for sizes, warps in options:
            assert all(number & (number - 1) == 0 and number > 0 for number in (*sizes.values(), warps))
            assert sizes.get("AT_ONCE", padded) in (padded, 8)
            assert sizes.get("AT_ONCE", padded) == padded or padded % 8 == 0
            assert sizes.get("AT_ONCE", padded) == padded or sizes["AT_ONCE"] >= 2 * points


def test_deterministic_mode_is_heard():
    """Oracle: torch's gradients, to the last bit."""
    args = arguments(SIZES["ordinary"], torch.float32)
    outer = output_and_gradients(multi_scale_deformable_attention, args)[2].float()
    expected = deformable_attention_torch.backward(outer, *args)
    torch.use_deterministic_algorithms(True)
    try:
        found = output_and_gradients(multi_scale_deformable_attention, args)[1]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(each, other) for each, other in zip(found, expected, strict=True))


def test_more_than_two_to_the_31_numbers():
    """Pages that nobody touches cost no memory. Oracle: the last pixel alone lies below the sample."""
    height, width, channels = 2**13, 2**13 + 1, 32
    pixels = height * width
    assert (pixels - 1) * channels > 2**31
    value = torch.from_numpy(np.zeros((1, pixels, 1, channels), dtype=np.float16))
    grad_value = torch.from_numpy(np.zeros((1, pixels, 1, channels), dtype=np.float32))
    value[0, -1] = 2
    shapes, starts = torch.tensor([[height, width]]), torch.tensor([0])
    locations = torch.tensor([(width - 0.5) / width, (height - 0.5) / height], dtype=torch.float64).view(
        1, 1, 1, 1, 1, 2
    )
    weights = torch.full((1, 1, 1, 1, 1), 3.0)
    output = torch.zeros(1, 1, channels)
    sizes = {"HEADS": 1, "CHANNELS": channels, "LEVELS": 1, "POINTS": 1, "PADDED": 32, "QUERIES": 16}
    kernels, given = deformable_attention_kernels, (value, shapes, starts, locations, weights)
    kernels.forward_kernel[(1,)](*given, output, pixels, 1, ACCUMULATED=tl.float64, **sizes)
    assert output.flatten().tolist() == pytest.approx([6.0] * channels, rel=1e-6)
    gradients = grad_value, torch.zeros(1, 1, 1, 1, 1, 2), torch.zeros(1, 1, 1, 1, 1)
    outer = torch.ones(1, 1, channels)
    kernels.backward_kernel[(1,)](outer, *given, *gradients, pixels, 1, ACCUMULATED=tl.float64, AT_ONCE=32, **sizes)
    assert grad_value[0, -1, 0].tolist() == pytest.approx([3.0] * channels, rel=1e-6)
    assert gradients[2].item() == pytest.approx(2 * channels, rel=1e-6)
