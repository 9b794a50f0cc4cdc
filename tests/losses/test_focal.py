"""Focal loss against its formula in float64, cross-entropy, mmdet and torchvision."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import peak_memory

from cvplugins.losses import FocalLoss, sigmoid_focal_loss, softmax_focal_loss


def sigmoid_formula(logits, target, gamma, alpha):
    """Return the paper's equation 5, one logit at a time; a target of C is background."""
    rows = []
    for scores, label in zip(logits.tolist(), target.tolist(), strict=True):
        row = []
        for index, score in enumerate(scores):
            probability = 1 / (1 + math.exp(-score))
            p_t = probability if index == label else 1 - probability
            alpha_t = alpha if index == label else 1 - alpha
            row.append(-alpha_t * (1 - p_t) ** gamma * math.log(p_t))
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.7])
@pytest.mark.parametrize("alpha", [0.25, 0.5, 1.0])
def test_sigmoid_equals_the_formula(gamma, alpha):
    logits = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3
    target = torch.randint(0, 4, (50,), generator=torch.Generator().manual_seed(2))
    expected = sigmoid_formula(logits, target, gamma, alpha)
    loss = sigmoid_focal_loss(logits, target, gamma=gamma, alpha=alpha, reduction="none")
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)


def test_sigmoid_with_gamma_0_is_binary_cross_entropy():
    logits = torch.randn(5, 3, 2)
    target = torch.rand(5, 3, 2)
    loss = sigmoid_focal_loss(logits, target, gamma=0, alpha=None)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits, target))


def test_softmax_with_gamma_0_is_weighted_cross_entropy():
    logits = torch.randn(5, 3, 4, 4)
    target = torch.randint(0, 3, (5, 4, 4))
    loss = softmax_focal_loss(logits, target, gamma=0, alpha=[1.0, 2.0, 3.0], reduction="none")
    expected = F.cross_entropy(logits, target, weight=torch.tensor([1.0, 2.0, 3.0]), reduction="none")
    torch.testing.assert_close(loss, expected)


def test_softmax_equals_the_formula():
    logits = torch.randn(30, 5, dtype=torch.float64) * 3
    target = torch.randint(0, 5, (30,))
    probability = logits.softmax(1)[torch.arange(30), target]
    expected = (-0.3 * (1 - probability) ** 2.5 * probability.log()).mean()
    torch.testing.assert_close(softmax_focal_loss(logits, target, gamma=2.5, alpha=0.3), expected)


def test_easy_example_keeps_its_small_loss_in_float32():
    # p_t = 1 - 4.5e-5: 1 - p_t computed as a difference would lose three digits.
    loss = softmax_focal_loss(torch.tensor([[10.0, 0.0]]), torch.tensor([0]))
    miss = 1 / (1 + math.exp(10))
    assert loss.item() == pytest.approx(-(miss**2) * math.log1p(-miss), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_easy_examples_keep_their_small_sum_and_gradient_in_float32(gamma):
    target = torch.arange(400) % 5  # 4 is background
    logits = 24.0 * F.one_hot(target, 5)[:, :4] - 12
    sums, gradients = [], []
    for dtype in (torch.float32, torch.float64):
        leaf = logits.to(dtype, copy=True).requires_grad_()
        loss = sigmoid_focal_loss(leaf, target, gamma=gamma, reduction="sum")
        loss.backward()
        sums.append(loss.detach().double())
        gradients.append(leaf.grad.double())
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-4, atol=0)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=0)


def test_image_shapes_flatten_to_the_same_loss():
    logits = torch.randn(2, 3, 4, 5)
    target = torch.randint(0, 4, (2, 4, 5))
    flat = logits.permute(0, 2, 3, 1).reshape(-1, 3)
    torch.testing.assert_close(
        sigmoid_focal_loss(logits, target, reduction="sum"),
        sigmoid_focal_loss(flat, target.reshape(-1), reduction="sum"),
    )


def test_alpha_of_a_wrong_length_is_named():
    with pytest.raises(ValueError, match="alpha holds 3 numbers; use 1 or 2"):
        softmax_focal_loss(torch.zeros(1, 2), torch.tensor([0]), alpha=[1.0, 2.0, 3.0])


def test_negative_gamma_is_refused():
    with pytest.raises(ValueError, match="gamma must be at least 0"):
        FocalLoss(gamma=-1)


def test_sigmoid_equals_torchvision():
    ops = pytest.importorskip("torchvision.ops")
    logits, target = torch.randn(7, 3), torch.randint(0, 2, (7, 3)).float()
    expected = ops.sigmoid_focal_loss(logits, target, alpha=0.25, gamma=2, reduction="mean")
    torch.testing.assert_close(sigmoid_focal_loss(logits, target), expected)


@pytest.mark.openmmlab
@pytest.mark.parametrize("soft", [False, True])
def test_sigmoid_equals_mmdet(soft):
    losses = pytest.importorskip("mmdet.models.losses")
    logits = torch.randn(9, 4)
    target = torch.rand(9, 4) if soft else torch.randint(0, 5, (9,))
    weight = torch.rand(9)
    reference = losses.FocalLoss(use_sigmoid=True)(logits, target, weight, avg_factor=5)
    torch.testing.assert_close(sigmoid_focal_loss(logits, target, weight=weight, divisor=5), reference)


@pytest.mark.parametrize("shape", [(40, 4), (3, 4, 5, 6)])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("alpha", [None, 0.25, [0.1, 0.9, 0.5, 0.3]])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [7, 1 << 16])
def test_sums_in_pieces_equal_the_sum_of_the_elements(shape, soft, alpha, gamma, weighted, size, monkeypatch):
    """Values, and gradients that are written out against those that autograd finds for every element."""
    monkeypatch.setattr("cvplugins.losses.chunks.VALUES_AT_ONCE", size)
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
    elements = shape[:1] + shape[2:]
    target = torch.randint(0, 5, elements, generator=generator)
    target[0] = -100
    if soft:
        target = torch.rand(shape, dtype=torch.float64, generator=generator)
        target[0, 0], target[1] = -100, 1.0
    weight = torch.rand(elements, dtype=torch.float64, generator=generator) if weighted else None
    options = {"gamma": gamma, "alpha": alpha, "weight": weight}
    each = sigmoid_focal_loss(logits, target, reduction="none", **options)
    total = sigmoid_focal_loss(logits, target, reduction="sum", **options)
    torch.testing.assert_close(total, each.sum())
    (expected,) = torch.autograd.grad(3 * each.sum(), logits)
    (gradient,) = torch.autograd.grad(3 * total, logits)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_soft_target_that_is_learned_gets_its_gradient(reduction):
    logits, target = torch.rand(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target.requires_grad_()
    assert torch.autograd.gradcheck(lambda t: sigmoid_focal_loss(logits, t, reduction=reduction), target)


def test_weight_that_is_learned_gets_its_gradient():
    logits, target = torch.randn(6, 4, dtype=torch.float64), torch.randint(0, 5, (6,))
    weight = torch.rand(6, dtype=torch.float64, requires_grad=True)
    for function in (sigmoid_focal_loss, softmax_focal_loss):
        wanted = target.clamp(max=3)
        assert torch.autograd.gradcheck(lambda w, f=function, t=wanted: f(logits, t, weight=w), weight)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_softmax_gradient_survives_certainty(gamma):
    """p_t is 1 or 0 to the last bit; the limits are those of float64 without cancellation."""
    logits = torch.tensor([[60.0, 0.0], [-60.0, 0.0]], requires_grad=True)
    softmax_focal_loss(logits, torch.tensor([0, 0]), gamma=gamma, reduction="sum").backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.0, 0.0], [-1.0, 1.0]]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("use_sigmoid", [True, False])
def test_peak_memory_stays_near_the_size_of_the_logits(use_sigmoid, monkeypatch):
    monkeypatch.setattr("cvplugins.losses.chunks.VALUES_AT_ONCE", 1 << 14)  # as small to these logits as to real ones
    logits = torch.randn(2, 150, 64, 64, requires_grad=True)
    target = torch.randint(0, 150, (2, 64, 64))
    loss = FocalLoss(use_sigmoid=use_sigmoid, alpha=0.25)
    peak = peak_memory(lambda: loss(logits, target).backward())
    assert logits.nbytes <= peak <= 1.5 * logits.nbytes


@pytest.mark.parametrize("use_sigmoid", [True, False])
def test_nothing_but_the_inputs_is_kept_for_the_backward_pass(use_sigmoid):
    logits = torch.randn(100, 20, requires_grad=True)
    target = torch.randint(0, 20, (100,))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: kept.append(saved) or saved, lambda saved: saved):
        FocalLoss(use_sigmoid=use_sigmoid)(logits, target)
    new = {saved.untyped_storage().data_ptr(): saved.nbytes for saved in kept}
    del new[logits.untyped_storage().data_ptr()]
    assert sum(new.values()) <= 0.25 * logits.nbytes  # of the size of the labels


@pytest.mark.parametrize("alpha", [-1, 1.5])
def test_share_of_positives_outside_0_and_1_is_refused(alpha):
    """Detectron2's default of -1 stands for no share; as a factor it would make losses negative."""
    with pytest.raises(ValueError, match="None leaves it out"):
        sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([0]), alpha=alpha)
    with pytest.raises(ValueError, match="None leaves it out"):
        FocalLoss(use_sigmoid=True, alpha=alpha)
    assert FocalLoss(alpha=1.5)(torch.zeros(1, 2), torch.tensor([0])) > 0  # a factor of the loss
