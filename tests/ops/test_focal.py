"""mmcv's focal losses against their formulas, differentiated by torch, and torchvision's."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss as torchvision_loss

from cvplugins.ops.focal import (
    sigmoid_focal_loss,
    sigmoid_focal_loss_backward,
    softmax_focal_loss,
    softmax_focal_loss_backward,
)

GAMMAS = [0.0, 0.5, 1.0, 2.0]


def inputs(dtype=torch.float64, rows=40, classes=5, background=True):
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(rows, classes, dtype=torch.float64, generator=generator)
    return logits.to(dtype), torch.randint(0, classes + background, (rows,), generator=generator)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("weighted", [False, True])
def test_sigmoid_equals_the_formula_of_the_kernel_and_its_derivative(gamma, weighted):
    logits, target = inputs()
    weight = torch.rand(5, dtype=torch.float64) if weighted else None
    leaf = logits.clone().requires_grad_()
    p, positive = leaf.sigmoid(), target[:, None] == torch.arange(5)
    # mmcv/ops/csrc/common/cuda/sigmoid_focal_loss_cuda_kernel.cuh
    formula = torch.where(positive, -0.3 * (1 - p) ** gamma * p.log(), -0.7 * p**gamma * (1 - p).log())
    if weighted:
        formula = formula * torch.cat([weight, weight.new_ones(1)])[target][:, None]
    formula.sum().backward()
    options = {"gamma": gamma, "alpha": 0.3, "weight": weight}
    torch.testing.assert_close(sigmoid_focal_loss(logits, target, **options), formula)
    torch.testing.assert_close(sigmoid_focal_loss_backward(logits, target, **options), leaf.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_sigmoid_in_less_than_float64_equals_torchvision_in_float64(dtype):
    logits, target = inputs(dtype)
    leaf = logits.double().requires_grad_()
    expected = torchvision_loss(leaf, F.one_hot(target, 6)[:, :5].double(), alpha=0.25, gamma=2.0)
    expected.sum().backward()
    loss = sigmoid_focal_loss(logits, target, gamma=2.0, alpha=0.25)
    slope = sigmoid_focal_loss_backward(logits, target, gamma=2.0, alpha=0.25)
    assert loss.dtype == slope.dtype == dtype
    tolerance = {"rtol": 4 * torch.finfo(dtype).eps, "atol": 1e-6}
    torch.testing.assert_close(loss.double(), expected.detach(), **tolerance)
    torch.testing.assert_close(slope.double(), leaf.grad, **tolerance)


def test_sigmoid_follows_its_formula_where_1_minus_p_rounds_to_0():
    logits, target = torch.tensor([[30.0, -30.0], [100.0, -100.0]]), torch.tensor([1, 1])
    loss = sigmoid_focal_loss(logits, target, gamma=2.0, alpha=0.25)
    torch.testing.assert_close(loss, torch.tensor([[0.75 * 30, 0.25 * 30], [0.75 * 100, 0.25 * 100]]))
    slope = sigmoid_focal_loss_backward(logits, target, gamma=2.0, alpha=0.25)
    torch.testing.assert_close(slope, torch.tensor([[0.75, -0.25], [0.75, -0.25]]))


def test_sigmoid_over_more_rows_than_at_once_and_without_order_in_memory():
    logits, target = inputs(torch.float32, rows=100_000)
    options = {"gamma": 2.0, "alpha": 0.25}
    for function in (sigmoid_focal_loss, sigmoid_focal_loss_backward):
        whole = function(logits, target, **options)
        torch.testing.assert_close(whole[-3:], function(logits[-3:], target[-3:], **options))
        turned = logits.T.contiguous().T
        torch.testing.assert_close(function(turned, target, **options), whole)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("weighted", [False, True])
def test_softmax_equals_the_formula_and_its_derivative(gamma, weighted):
    logits, target = inputs(background=False)
    target[::7] = -1
    weight = torch.rand(5, dtype=torch.float64) if weighted else None
    leaf = logits.clone().requires_grad_()
    probability = leaf.softmax(1)
    p = probability[torch.arange(40), target.clamp(min=0)]
    formula = -0.3 * (1 - p) ** gamma * p.log() * (target >= 0)
    if weighted:
        formula = formula * weight[target.clamp(min=0)]
    formula.sum().backward()
    options = {"gamma": gamma, "alpha": 0.3, "weight": weight}
    loss = softmax_focal_loss(probability.detach(), target, **options)
    _, gradient = softmax_focal_loss_backward(probability.detach(), target, **options)
    torch.testing.assert_close(loss, formula.detach())
    torch.testing.assert_close(gradient, leaf.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_softmax_in_half_precision_is_that_of_float32_rounded(dtype):
    logits, target = inputs(torch.float32, background=False)
    probability = logits.softmax(1).to(dtype)
    options = {"gamma": 2.0, "alpha": 0.25}
    loss = softmax_focal_loss(probability, target, **options)
    assert torch.equal(loss, softmax_focal_loss(probability.float(), target, **options).to(dtype))
    found = softmax_focal_loss_backward(probability, target, **options)
    expected = softmax_focal_loss_backward(probability.float(), target, **options)
    assert all(torch.equal(half, full.to(dtype)) for half, full in zip(found, expected, strict=True))


@pytest.mark.parametrize("gamma", GAMMAS)
def test_softmax_of_a_sure_row_is_finite(gamma):
    probability, target = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
    loss = softmax_focal_loss(probability, target, gamma=gamma, alpha=1.0)
    torch.testing.assert_close(loss, torch.tensor([0.0, 87.3365]))  # -log of float32's smallest normal number
    _, gradient = softmax_focal_loss_backward(probability, target, gamma=gamma, alpha=1.0)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 0.0], [-1.0, 1.0]]))


def test_no_rows_and_no_classes():
    for rows, classes in [(0, 5), (3, 0)]:
        logits, target = torch.zeros(rows, classes), torch.zeros(rows, dtype=torch.int64)
        for function in (sigmoid_focal_loss, sigmoid_focal_loss_backward):
            assert function(logits, target, gamma=2.0, alpha=0.25).shape == (rows, classes)
    none = torch.zeros(0, dtype=torch.int64)
    assert softmax_focal_loss(torch.zeros(0, 5), none, gamma=2.0, alpha=0.25).shape == (0,)
    slope, gradient = softmax_focal_loss_backward(torch.zeros(0, 5), none, gamma=2.0, alpha=0.25)
    assert (slope.shape, gradient.shape) == ((0,), (0, 5))
