"""Parts of mmdet and mmseg that use these operators, built tiny: equal to themselves on the formulas of the kernels."""

from importlib import import_module

import pytest
import torch
from ops import conv_formulas
from torch.testing import assert_close

pytestmark = pytest.mark.openmmlab


def results_of(module, inputs):
    """Return the outputs, and the gradients of one weighted sum of them for every parameter that is used."""
    module.zero_grad()
    outputs = module(inputs)
    outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    generator = torch.Generator().manual_seed(9)
    weights = [torch.randn(output.shape, generator=generator) for output in outputs]
    sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True)).backward()
    gradients = {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}
    return [output.detach() for output in outputs], gradients


def assert_equals_formula(module, inputs, monkeypatch, target, formula, used):
    """Compare a module with itself after mmcv's function ``<file>.<name>`` is replaced by a formula."""
    ours, our_gradients = results_of(module, inputs)
    calls = []
    file, name = target.split(".")
    monkeypatch.setattr(import_module(f"mmcv.ops.{file}"), name, lambda *args: calls.append(1) or formula(*args))
    outputs, gradients = results_of(module, inputs)
    assert len(calls) == used
    assert all(output.isfinite().all() for output in ours)
    assert_close(ours, outputs, rtol=1e-4, atol=1e-4)
    assert set(our_gradients) == set(gradients)
    for name, gradient in gradients.items():
        size = float(gradient.abs().max())
        assert_close(our_gradients[name], gradient, rtol=1e-3, atol=1e-4 * max(size, 1), msg=lambda m, n=name: n + m)


def shaken(module):
    """Let nothing be at its start: offsets of zero, and norms that forget their scale, hide differences."""
    torch.manual_seed(10)
    for name, parameter in module.named_parameters():
        parameter.data += torch.randn_like(parameter) * (0.3 if "conv_offset" in name else 0.05)
    module.train()  # mmdet's ResNet returns nothing here
    return module


def deform_formula(input, offset, weight, stride, padding, dilation, groups, deform_groups, bias, im2col_step):
    return conv_formulas.deform_conv(
        input, offset, weight, None, None, stride, padding, dilation, groups, deform_groups
    )


def modulated_formula(input, offset, mask, weight, bias, *geometry):
    return conv_formulas.deform_conv(input, offset, weight, mask, bias, *pairs(geometry))


def pairs(geometry):
    return [value if isinstance(value, tuple) else (value, value) for value in geometry[:3]] + list(geometry[3:])


@pytest.mark.parametrize(
    ("dcn", "target", "formula"),
    [
        ("DCN", "deform_conv.deform_conv2d", deform_formula),
        ("DCNv2", "modulated_deform_conv.modulated_deform_conv2d", modulated_formula),
    ],
)
def test_resnet(dcn, target, formula, monkeypatch):
    from mmdet.models import ResNet

    config = {"type": dcn, "deform_groups": 2, "fallback_on_stride": False}
    model = shaken(ResNet(50, base_channels=4, stem_channels=4, dcn=config, stage_with_dcn=(False, False, False, True)))
    image = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(11))
    assert_equals_formula(model, image, monkeypatch, target, formula, used=3)


def test_fpn_carafe(monkeypatch):
    from mmdet.models.necks import FPN_CARAFE

    upsample = {
        "type": "carafe",
        "up_kernel": 3,
        "up_group": 1,
        "encoder_kernel": 3,
        "encoder_dilation": 1,
        "compressed_channels": 4,
    }
    neck = FPN_CARAFE([4, 6], 4, num_outs=3, start_level=0, end_level=-1, upsample_cfg=upsample)
    neck.init_weights()
    generator = torch.Generator().manual_seed(12)
    features = [torch.randn(1, 4, 6, 4, generator=generator), torch.randn(1, 6, 3, 2, generator=generator)]
    neck = shaken(neck)
    assert_equals_formula(neck, features, monkeypatch, "carafe.carafe", conv_formulas.carafe, used=2)


@pytest.mark.parametrize("psa_type", ["collect", "distribute", "bi-direction"])
def test_psa_head(psa_type, monkeypatch):
    from mmengine.registry import DefaultScope
    from mmseg.models.decode_heads import PSAHead

    with DefaultScope.overwrite_default_scope("mmseg"):
        head = PSAHead(
            mask_size=(7, 7),
            psa_type=psa_type,
            compact=False,
            shrink_factor=2,
            in_channels=4,
            channels=4,
            num_classes=3,
            dropout_ratio=0,
            norm_cfg={"type": "BN"},
        )
    features = [torch.randn(2, 4, 7, 7, generator=torch.Generator().manual_seed(13))]
    assert_equals_formula(
        shaken(head),
        features,
        monkeypatch,
        "psa_mask.psa_mask",
        lambda mask, kind, size: conv_formulas.psa_mask(mask, bool(kind), size),
        used=2 if psa_type == "bi-direction" else 1,
    )


def test_guided_anchor_head_predicts_at_chosen_places_only():
    """mmdet's head on a masked convolution against itself without a mask, at the places that it chose."""
    from mmdet.models.dense_heads import GARetinaHead
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("mmdet"):
        head = GARetinaHead(num_classes=2, in_channels=4, feat_channels=4, stacked_convs=1).eval()
    head.loc_filter_thr = 0.5
    features = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(14))
    with torch.no_grad():
        head.conv_loc.bias.zero_()
        score, box, _, location = head.forward_single(features)
        chosen = location.sigmoid()[0, 0] >= head.loc_filter_thr
        head.train()
        whole_score, whole_box, _, _ = head.forward_single(features)
    assert 0 < chosen.sum() < chosen.numel()
    for predicted, whole in ((score, whole_score), (box, whole_box)):
        assert_close(predicted, torch.where(chosen, whole, 0), rtol=1e-5, atol=1e-6)
