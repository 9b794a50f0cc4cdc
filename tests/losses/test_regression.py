"""Losses on differences against torch and their definitions."""

import pytest
import torch
import torch.nn.functional as F

from cvplugins.losses import CharbonnierLoss, charbonnier_loss, l1_loss, l2_loss, smooth_l1_loss


def test_l1_equals_torch():
    values, target = torch.randn(2, 50, 4)
    torch.testing.assert_close(l1_loss(values, target), F.l1_loss(values, target))


@pytest.mark.parametrize("beta", [0.0, 0.1, 1.0, 3.0])
def test_smooth_l1_equals_its_definition(beta):
    values, target = torch.randn(2, 50, 4, dtype=torch.float64) * 2
    expected = [
        difference - beta / 2 if difference >= beta else difference**2 / (2 * beta)
        for difference in (values - target).abs().flatten().tolist()
    ]
    found = smooth_l1_loss(values, target, beta=beta, reduction="none").flatten()
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_weight_per_value_and_per_row():
    values, target = torch.randn(2, 5, 4)
    each = l1_loss(values, target, reduction="none")
    weight = torch.rand(5)
    torch.testing.assert_close(l1_loss(values, target, weight=weight, reduction="none"), each * weight[:, None])
    weight = torch.rand(5, 4)
    torch.testing.assert_close(l1_loss(values, target, weight=weight, reduction="none"), each * weight)


def test_negative_beta_is_refused():
    with pytest.raises(ValueError, match="beta must be at least 0"):
        smooth_l1_loss(torch.zeros(1), torch.zeros(1), beta=-1)


def test_l2_equals_torch():
    values, target = torch.randn(2, 50, 4)
    torch.testing.assert_close(l2_loss(values, target), F.mse_loss(values, target))


def test_charbonnier_equals_its_formula_and_nears_l1():
    values, target = torch.randn(2, 50, 4, dtype=torch.float64)
    expected = ((values - target) ** 2 + 0.3**2).sqrt()
    torch.testing.assert_close(charbonnier_loss(values, target, eps=0.3, reduction="none"), expected)
    torch.testing.assert_close(charbonnier_loss(values, target, eps=1e-12), l1_loss(values, target))


@pytest.mark.parametrize("difference", [0.0, 1e-20, 1e30])
def test_charbonnier_is_finite_everywhere(difference):
    values = torch.tensor([difference]).requires_grad_()
    loss = charbonnier_loss(values, torch.zeros(1))
    loss.backward()
    assert loss.isfinite()
    assert values.grad.abs() <= 1


def test_charbonnier_needs_a_width():
    with pytest.raises(ValueError, match="eps must be above 0"):
        CharbonnierLoss(eps=0)
