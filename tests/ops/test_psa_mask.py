"""Masks of point-wise spatial attention against the loop of mmcv's kernel: both move numbers, so bits are equal."""

import pytest
import torch
from ops.cases_psa_mask import SIZES, mask_of
from ops.conv_formulas import psa_mask as formula

from cvplugins.ops.psa_mask import psa_collect, psa_collect_backward, psa_distribute, psa_distribute_backward

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
KINDS = {
    "collect": (psa_collect, psa_collect_backward),
    "distribute": (psa_distribute, psa_distribute_backward),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_formula(size, kind, device):
    forward, backward = KINDS[kind]
    mask, window = torch.from_numpy(mask_of(size)).requires_grad_(), SIZES[size][2]
    output = formula(mask, kind == "distribute", window)
    grad_output = torch.randn(output.shape, generator=torch.Generator().manual_seed(8))
    (gradient,) = torch.autograd.grad(output, mask, grad_output) if output.requires_grad else (torch.zeros_like(mask),)
    assert torch.equal(forward(mask.detach().to(device), window).cpu(), output)
    assert torch.equal(backward(grad_output.to(device), window).cpu(), gradient)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_every_precision_is_moved_as_it_is(kind, dtype):
    forward, backward = KINDS[kind]
    mask, window = torch.from_numpy(mask_of("covering")).to(dtype), SIZES["covering"][2]
    output = forward(mask, window)
    assert output.dtype == dtype
    assert torch.equal(output.double(), forward(mask.double(), window))
    assert torch.equal(backward(output, window).double(), backward(output.double(), window))


@pytest.mark.parametrize("kind", KINDS)
def test_memory_format_does_not_matter(kind):
    forward, backward = KINDS[kind]
    mask, window = torch.from_numpy(mask_of("covering")), SIZES["covering"][2]
    output = forward(mask, window)
    last = mask.to(memory_format=torch.channels_last)
    assert torch.equal(forward(last, window), output)
    assert torch.equal(
        backward(output.to(memory_format=torch.channels_last), window), backward(output.contiguous(), window)
    )


def test_collecting_and_distributing_are_transposed():
    """Limiting case: what a pixel distributes to another is what a transposed mask collects."""
    mask, window = torch.from_numpy(mask_of("even")), SIZES["even"][2]
    collected, distributed = psa_collect(mask, window), psa_distribute(mask, window)
    assert torch.equal(collected.flatten(2).transpose(1, 2), distributed.flatten(2))
