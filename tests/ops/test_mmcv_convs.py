"""mmcv's own layers on our operators: forward and backward against the formulas of its kernels in float64."""

import pytest
import torch
from ops import conv_formulas
from torch.testing import assert_close

pytestmark = pytest.mark.openmmlab


def random_module(module, seed=0):
    """Return a module in float64 whose parameters are all random: mmcv starts offsets at zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 3
    return module


def random_input(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def assert_same_results(ours, formula, learnt):
    """Compare two outputs and the gradients of one weighted sum of each."""
    assert_close(ours, formula)
    weights = random_input(*ours.shape, seed=2).detach()
    assert_close(torch.autograd.grad(ours, learnt, weights), torch.autograd.grad(formula, learnt, weights))


def test_deform_conv():
    from mmcv.ops import DeformConv2d

    module = random_module(DeformConv2d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2, deform_groups=2))
    image, offset = random_input(2, 4, 7, 6), random_input(2, 36, 4, 3)
    formula = conv_formulas.deform_conv(image, offset, module.weight, None, None, (2, 2), (2, 2), (2, 2), 2, 2)
    assert_same_results(module(image, offset), formula, [image, offset, module.weight])


def test_a_map_smaller_than_the_kernel():
    from mmcv.ops import DeformConv2d

    module = random_module(DeformConv2d(2, 3, 3, padding=1))
    image, offset = random_input(1, 2, 2, 2), random_input(1, 18, 2, 2)
    formula = conv_formulas.deform_conv(image, offset, module.weight, padding=(1, 1))
    assert_same_results(module(image, offset), formula, [image, offset, module.weight])


def test_deform_conv_pack():
    from mmcv.ops import DeformConv2dPack

    module = random_module(DeformConv2dPack(4, 3, 3, padding=1, deform_groups=2))
    image = random_input(2, 4, 4, 5)
    formula = conv_formulas.deform_conv(
        image, module.conv_offset(image), module.weight, padding=(1, 1), offset_groups=2
    )
    assert_same_results(module(image), formula, [image, *module.parameters()])


@pytest.mark.parametrize("bias", [True, False])
def test_modulated_deform_conv_pack(bias):
    from mmcv.ops import ModulatedDeformConv2dPack

    module = random_module(ModulatedDeformConv2dPack(4, 3, 3, padding=1, deform_groups=2, bias=bias))
    image = random_input(2, 4, 4, 5)
    offset, mask = module.conv_offset(image).split([36, 18], dim=1)
    formula = conv_formulas.deform_conv(
        image, offset, module.weight, mask.sigmoid(), module.bias, padding=(1, 1), offset_groups=2
    )
    assert_same_results(module(image), formula, [image, *module.parameters()])


@pytest.mark.parametrize("frozen", ["input", "weight"])
def test_deform_conv_that_is_partly_frozen(frozen):
    """mmcv asks for the gradients of the input and of the weight in two calls, of which one can be missing."""
    from mmcv.ops import DeformConv2d

    module = random_module(DeformConv2d(2, 3, 3, padding=1))
    image, offset = random_input(1, 2, 4, 4), random_input(1, 18, 4, 4)
    learnt = [module.weight] if frozen == "input" else [image, offset]
    for tensor in (image, offset) if frozen == "input" else (module.weight,):
        tensor.requires_grad_(False)
    formula = conv_formulas.deform_conv(image, offset, module.weight, padding=(1, 1))
    assert_same_results(module(image, offset), formula, learnt)


def test_deform_conv_backward_twice():
    """Limiting case: the second pass through a kept graph gives the gradients of the first."""
    from mmcv.ops import DeformConv2d

    module = random_module(DeformConv2d(2, 3, 3, padding=1))
    learnt = [random_input(1, 2, 4, 4), random_input(1, 18, 4, 4), module.weight]
    output = module(*learnt[:2]).sum()
    first = torch.autograd.grad(output, learnt, retain_graph=True)
    for one, other in zip(torch.autograd.grad(output, learnt), first, strict=True):
        assert torch.equal(one, other)


def test_the_batch_has_to_be_a_multiple_of_im2col_step():
    from mmcv.ops import DeformConv2d

    module = DeformConv2d(2, 3, 3, padding=1, im2col_step=2)
    with pytest.raises(AssertionError, match="divisible by im2col_step"):
        module(torch.zeros(3, 2, 4, 4), torch.zeros(3, 18, 4, 4))


def test_mmcv_refuses_deform_conv_of_no_images():
    from mmcv.ops import DeformConv2d

    with pytest.raises(ValueError, match="convolution input is too small"):
        DeformConv2d(2, 3, 3, padding=1)(torch.zeros(0, 2, 4, 4), torch.zeros(0, 18, 4, 4))


def test_carafe():
    from mmcv.ops import CARAFE

    features, masks = random_input(2, 4, 2, 3), random_input(2, 18, 4, 6)
    formula = conv_formulas.carafe(features, masks, 3, 2, 2)
    assert_same_results(CARAFE(3, 2, 2)(features, masks), formula, [features, masks])


def test_carafe_naive():
    """mmcv's own backward asks whether the gradient is on CUDA, so on the CPU the operator itself is called."""
    from mmcv.ops import CARAFENaive
    from mmcv.ops.carafe import ext_module

    features, masks = random_input(2, 4, 2, 3), random_input(2, 18, 4, 6)
    formula = conv_formulas.carafe(features, masks, 3, 2, 2)
    output = CARAFENaive(3, 2, 2)(features, masks)
    assert_close(output, formula)
    weights = random_input(*output.shape, seed=2).detach()
    gradients = torch.zeros_like(features), torch.zeros_like(masks)
    options = {"kernel_size": 3, "group_size": 2, "scale_factor": 2}
    ext_module.carafe_naive_backward(weights, features.detach(), masks.detach(), *gradients, **options)
    assert_close(gradients, torch.autograd.grad(formula, (features, masks), weights))


@pytest.mark.gpu
def test_carafe_naive_learns_on_a_gpu():
    from mmcv.ops import CARAFENaive

    features, masks = random_input(2, 4, 2, 3), random_input(2, 18, 4, 6)
    formula = conv_formulas.carafe(features, masks, 3, 2, 2)
    assert_same_results(CARAFENaive(3, 2, 2)(features.cuda(), masks.cuda()).cpu(), formula, [features, masks])


def test_carafe_pack():
    from mmcv.ops import CARAFEPack

    module = random_module(CARAFEPack(3, 2, up_kernel=3, up_group=1, compressed_channels=2))
    image = random_input(1, 3, 3, 2)
    masks = module.kernel_normalizer(module.content_encoder(module.channel_compressor(image)))
    assert_same_results(module(image), conv_formulas.carafe(image, masks, 3, 1, 2), [image, *module.parameters()])


def test_carafe_of_no_images():
    from mmcv.ops import CARAFE

    features, masks = torch.zeros(0, 4, 2, 3, requires_grad=True), torch.zeros(0, 18, 4, 6)
    output = CARAFE(3, 2, 2)(features, masks)
    output.sum().backward()
    assert (output.shape, features.grad.shape) == ((0, 4, 4, 6), (0, 4, 2, 3))


@pytest.mark.parametrize("chosen", ["some", "all", "none"])
def test_masked_conv(chosen):
    """Reference: the layer itself without a mask, which is torch's convolution. mmcv gives it no gradient."""
    from mmcv.ops import MaskedConv2d

    module = random_module(MaskedConv2d(3, 4, 3, padding=1))
    image, noise = random_input(1, 3, 5, 6), random_input(1, 5, 6, seed=3)
    mask = {"some": noise > 0, "all": noise > -9, "none": noise > 9}[chosen]
    assert_close(module(image, mask.float()), torch.where(mask, module(image), 0))


@pytest.mark.parametrize("kind", ["collect", "distribute"])
@pytest.mark.parametrize("window", [(5, 7), (3, 1)])
def test_psa_mask(kind, window):
    from mmcv.ops import PSAMask

    mask = random_input(2, window[0] * window[1], 3, 4)
    formula = conv_formulas.psa_mask(mask, kind == "distribute", window)
    assert_same_results(PSAMask(kind, window)(mask), formula, [mask])


def layers():
    from mmcv.ops import CARAFEPack, DeformConv2dPack, ModulatedDeformConv2dPack

    return [
        DeformConv2dPack(4, 3, 3, padding=1),
        ModulatedDeformConv2dPack(4, 3, 3, padding=1),
        CARAFEPack(4, 2, compressed_channels=2),
    ]


@pytest.mark.parametrize("index", range(3))
def test_layers_learn_under_autocast(index):
    """bfloat16 has 8 bits: a layer under autocast is within a few of its steps of the same layer in float32.

    Deformable convolutions return the type of their offsets, CARAFE that of the features.
    """
    from mmcv.ops import CARAFEPack

    module = random_module(layers()[index]).float()
    image = random_input(1, 4, 5, 5).detach().float()
    expected = module(image)
    with torch.autocast("cpu", torch.bfloat16):
        output = module(image)
    output.float().square().mean().backward()
    assert output.dtype == (torch.float32 if isinstance(module, CARAFEPack) else torch.bfloat16)
    scale = expected.abs().max()
    assert_close(output.float() / scale, expected / scale, rtol=0, atol=0.05)
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in module.parameters())
