"""Convolution at chosen pixels against torch's convolution of the whole map."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from cvplugins.ops.masked_conv import columns_to_pixels, patches_at

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("kernel", "padding"), [((3, 3), (1, 1)), ((1, 1), (0, 0)), ((2, 5), (1, 2)), ((3, 3), (0, 0))]
)
def test_the_product_with_a_weight_is_a_convolution(kernel, padding, device):
    generator = torch.Generator().manual_seed(5)
    image = torch.randn(1, 3, 5, 6, dtype=torch.float64, generator=generator)
    weight = torch.randn(4, 3, *kernel, dtype=torch.float64, generator=generator)
    whole = F.conv2d(image, weight, padding=padding)
    chosen = torch.rand(whole.shape[2:], generator=generator) < 0.5
    rows, columns = (index.to(device) for index in chosen.nonzero(as_tuple=True))
    patches = patches_at(image.to(device), rows, columns, kernel, padding)
    output = torch.full_like(whole, 7.0).to(device)
    columns_to_pixels(weight.flatten(1).to(device) @ patches, rows, columns, output)
    assert_close(output.cpu(), torch.where(chosen, whole, 7.0))


def test_the_rows_of_a_matrix_are_ordered_as_those_of_unfold():
    """Reference: torch's unfold, at every pixel."""
    image = torch.randn(1, 2, 4, 3, generator=torch.Generator().manual_seed(6))
    rows, columns = torch.ones(4, 3).nonzero(as_tuple=True)
    assert torch.equal(patches_at(image, rows, columns, (3, 3), (1, 1)), F.unfold(image, 3, padding=1)[0])


def test_a_kernel_that_reaches_beyond_the_padding_sees_zeros():
    """By hand: the last pixel of a row, under a kernel of three without padding."""
    patches = patches_at(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([0]), torch.tensor([1]), (1, 3), (0, 0))
    assert patches[:, 0].tolist() == [2, 0, 0]


def test_no_pixels():
    none = torch.zeros(0, dtype=torch.int64)
    patches = patches_at(torch.ones(1, 2, 4, 4), none, none, (3, 3), (1, 1))
    assert patches.shape == (18, 0)
    output = torch.ones(1, 5, 4, 4)
    columns_to_pixels(torch.zeros(5, 0), none, none, output)
    assert output.sum() == 80


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_copied(dtype):
    image = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(7)).to(dtype)
    index = torch.arange(4)
    patches = patches_at(image, index, index, (3, 3), (1, 1))
    assert patches.dtype == dtype
    assert torch.equal(patches.double(), patches_at(image.double(), index, index, (3, 3), (1, 1)))
