"""Feature, style and feature matching losses against loops over images and layers in float64, and piq's."""

import pytest
import torch
from torch import nn

from cvplugins.losses import (
    FeatureMatchingLoss,
    PerceptualLoss,
    StyleLoss,
    feature_matching_loss,
    gram_matrix,
    perceptual_loss,
    style_loss,
)

FUNCTIONS = [perceptual_loss, feature_matching_loss, style_loss]


def maps(seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, 4, 6, 5), (3, 5, 3, 2), (3, 7)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def gram_by_hand(features):
    """Gram matrix of one map ``(C, *)``, entry by entry."""
    rows = [row.flatten().tolist() for row in features]
    size = len(rows) * len(rows[0])
    return [[sum(a * b for a, b in zip(one, other, strict=True)) / size for other in rows] for one in rows]


def distance_by_hand(one, other, distance):
    pairs = list(zip(one.flatten().tolist(), other.flatten().tolist(), strict=True))
    return sum(abs(a - b) if distance == "l1" else (a - b) ** 2 for a, b in pairs) / len(pairs)


def by_hand(function, features, target, distance, layer_weight):
    images = []
    for image in range(len(features[0])):
        total = 0.0
        for one, other, factor in zip(features, target, layer_weight, strict=True):
            one, other = one[image], other[image]
            if function is style_loss:
                one, other = torch.tensor(gram_by_hand(one)), torch.tensor(gram_by_hand(other))
            total += factor * distance_by_hand(one.double(), other.double(), distance)
        images.append(total / (len(features) if function is feature_matching_loss else 1))
    return torch.tensor(images, dtype=torch.float64)


@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("layer_weight", [None, [0.5, 0.0, 3.0]])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_values_equal_a_loop(function, distance, layer_weight):
    torch.set_default_dtype(torch.float64)
    try:
        expected = by_hand(function, maps(0), maps(1), distance, layer_weight or [1.0] * 3)
    finally:
        torch.set_default_dtype(torch.float32)
    options = {"distance": distance, "layer_weight": layer_weight}
    torch.testing.assert_close(function(maps(0), maps(1), reduction="none", **options), expected)
    torch.testing.assert_close(function(maps(0), maps(1), **options), expected.mean())
    weight = torch.tensor([0.0, 2.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(
        function(maps(0), maps(1), weight=weight, divisor=3.0, **options), (expected * weight).sum() / 3
    )


def test_modules_are_the_functions_on_feature_maps():
    cases = [(PerceptualLoss, perceptual_loss), (StyleLoss, style_loss), (FeatureMatchingLoss, feature_matching_loss)]
    for module, function in cases:
        torch.testing.assert_close(module(None)(maps(0), maps(1)), function(maps(0), maps(1)))
        options = {"distance": "l1", "layer_weight": [1.0, 2.0, 0.0], "reduction": "sum"}
        torch.testing.assert_close(module(None, **options)(maps(0), maps(1)), function(maps(0), maps(1), **options))
    with pytest.raises(ValueError, match="weights and layers belong to a backbone"):
        FeatureMatchingLoss(layers=["relu1_1"])


def test_the_network_sees_normalised_images():
    network = nn.Conv2d(3, 4, 3).double()
    images = torch.rand(2, 2, 3, 6, 6, dtype=torch.float64)
    mean, std = (torch.tensor(each).view(3, 1, 1).double() for each in ([0.1, 0.2, 0.3], [0.5, 1.0, 2.0]))
    expected = (network((images[0] - mean) / std) - network((images[1] - mean) / std)).square().mean()
    loss = PerceptualLoss(network, mean=[0.1, 0.2, 0.3], std=[0.5, 1.0, 2.0])
    torch.testing.assert_close(loss(*images), expected)
    torch.testing.assert_close(
        PerceptualLoss(nn.Identity(), mean=None, std=None)(*images), images.diff(dim=0).square().mean()
    )


@pytest.mark.parametrize("function", FUNCTIONS)
def test_equal_images_cost_nothing(function):
    features = [each.requires_grad_() for each in maps(0)]
    loss = function(features, maps(0))
    loss.backward()
    assert loss == 0
    assert not any(each.grad.any() for each in features)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_gradient_reaches_the_prediction_and_not_the_target(function):
    features, target = maps(0), [each.requires_grad_() for each in maps(1)]
    assert torch.autograd.gradcheck(lambda *each: function(each, target), [each.requires_grad_() for each in features])
    function(features, target).backward()
    assert all(each.grad.abs().sum() > 0 for each in features)
    assert all(each.grad is None for each in target)


@pytest.mark.parametrize("loss", [PerceptualLoss, StyleLoss, FeatureMatchingLoss])
def test_gradient_through_a_network_with_parameters(loss):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 2, 1)).double()
    images, target = torch.rand(2, 1, 3, 4, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(network)(x, target), images.requires_grad_())


def test_the_target_passes_without_a_graph():
    recorded = []

    class Recording(nn.Module):
        def forward(self, images):
            recorded.append(torch.is_grad_enabled())
            return images

    PerceptualLoss(Recording())(torch.rand(1, 3, 4, 4, requires_grad=True), torch.rand(1, 3, 4, 4, requires_grad=True))
    assert recorded == [True, False]


def test_style_knows_no_places():
    features = maps(0)[0]
    shuffled = features.flatten(2)[:, :, torch.randperm(30)].view_as(features)
    torch.testing.assert_close(style_loss(features, shuffled), torch.zeros((), dtype=torch.float64))
    assert perceptual_loss(features, shuffled) > 0.1
    # Repeating an image changes neither its style nor what the style is divided by.
    torch.testing.assert_close(gram_matrix(features.repeat(1, 1, 2, 3)), gram_matrix(features))
    assert style_loss(features, torch.cat([shuffled, shuffled], dim=3)) < 1e-12


def test_gram_matrix_has_second_derivatives():
    features = maps(0)[1].requires_grad_()
    assert torch.autograd.gradcheck(gram_matrix, features)
    assert torch.autograd.gradgradcheck(gram_matrix, features)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_half_precision_and_large_features(function):
    for dtype in (torch.float16, torch.bfloat16):
        features = [each.requires_grad_() for each in maps(0, dtype)]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = function(features, maps(1, dtype))
        loss.backward()
        assert loss.dtype == torch.float32
        expected = function([each.detach().float() for each in features], [each.float() for each in maps(1, dtype)])
        torch.testing.assert_close(loss, expected)
    features = [(each * 1e4).requires_grad_() for each in maps(0, torch.float32)]
    loss = function(features, maps(1, torch.float32))
    loss.backward()
    assert loss.isfinite()
    assert all(each.grad.isfinite().all() for each in features)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_wrong_arguments_are_named(function):
    features = maps(0)
    with pytest.raises(ValueError, match="a target of 2 feature maps does not fit 3"):
        function(features, features[:2])
    with pytest.raises(ValueError, match="a target of 0 feature maps does not fit 0"):
        function([], [])
    with pytest.raises(ValueError, match=r"feature map 0: target \(2, .*\) does not fit \(3, "):
        function(features, [features[0][:2], *features[1:]])
    with pytest.raises(ValueError, match="not fit"):
        function(torch.ones(3), torch.ones(3))
    with pytest.raises(ValueError, match="layer_weight holds 2 numbers; expected 3, one per feature map"):
        function(features, features, layer_weight=[1.0, 2.0])
    with pytest.raises(ValueError, match="unknown distance 'l3'; use 'l1' or 'l2'"):
        function(features, features, distance="l3")
    with pytest.raises(ValueError, match=r"weight \(3, 6, 5\) does not fit the loss \(3,\)"):
        function(features, features, weight=torch.ones(3, 6, 5))
    with pytest.raises(ValueError, match="unknown distance 'mse'"):
        PerceptualLoss(nn.Identity(), distance="mse")


@pytest.mark.parametrize(("distance", "theirs"), [("l1", "mae"), ("l2", "mse")])
def test_equals_piq(distance, theirs):
    """It sums over the channels and leaves Gram matrices as they are: factors per layer make up for both."""
    piq = pytest.importorskip("piq")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU())

    class Both(nn.Module):
        def forward(self, images):
            first = network[:2](images)
            return first, network[2:](first)

    images, target = torch.rand(2, 3, 3, 8, 8)
    options = {"feature_extractor": network, "layers": ["1", "3"], "distance": theirs}
    content = piq.ContentLoss(weights=[1.0, 0.5], **options)(images, target)
    ours = PerceptualLoss(Both(), layer_weight=[4.0, 3.0], distance=distance)(images, target)
    torch.testing.assert_close(ours, content)
    style = piq.StyleLoss(weights=[1.0, 0.5], **options)(images, target)
    power = 1 if distance == "l1" else 2
    factors = [(4 * 36.0) ** power, 0.5 * (6 * 16.0) ** power]
    torch.testing.assert_close(StyleLoss(Both(), layer_weight=factors, distance=distance)(images, target), style)
