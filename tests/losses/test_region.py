"""Region losses against one-hot formulas in float64, each other, mmdet's and mmseg's, and a bound on memory."""

import pytest
import torch
import torch.nn.functional as F
from helpers import peak_memory

from cvplugins.losses import (
    DiceLoss,
    FocalTverskyLoss,
    IoULoss,
    TverskyLoss,
    generalized_dice_loss,
    region_sums,
    tversky_loss,
)


def scores(seed=0, classes=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, classes, 6, 5, generator=generator, dtype=dtype) * 2
    return logits, torch.randint(0, classes, (3, 6, 5), generator=generator)


def one_hot_sums(logits, target, weight=None, ignore_index=255):
    """The three sums as everyone writes them."""
    valid = (target != ignore_index).unsqueeze(1).to(logits.dtype)
    valid = valid if weight is None else valid * weight.unsqueeze(1)
    one_hot = F.one_hot(target.masked_fill(target == ignore_index, 0), logits.shape[1]).movedim(-1, 1)
    probability = logits.softmax(1)
    pixels = tuple(range(2, logits.ndim))
    return tuple((each * valid).sum(pixels) for each in (probability * one_hot, probability, one_hot))


@pytest.mark.parametrize("weighted", [False, True])
def test_sums_and_their_gradient_equal_one_hot(weighted, monkeypatch):
    monkeypatch.setattr("cvplugins.losses.chunks.VALUES_AT_ONCE", 50)  # several portions
    logits, target = scores()
    target[0, :2] = 255
    weight = torch.rand(3, 6, 5, dtype=torch.float64) if weighted else None
    first, second = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    ours = region_sums(first, target, weight=weight)
    theirs = one_hot_sums(second, target, weight)
    factors = torch.randn(2, 3, 4, dtype=torch.float64)
    for sums in (ours, theirs):
        (sums[0] * factors[0] + (sums[1] * factors[1]).cos()).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(first.grad, second.grad)


def test_sums_of_sigmoids():
    logits, _ = scores()
    target = torch.rand_like(logits)
    target[0, 0, 0, 0] = 255
    first, second = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    weight = torch.rand(3, 6, 5, dtype=torch.float64)
    ours = region_sums(first, target, mode="multilabel", weight=weight)
    factor = weight.unsqueeze(1) * (target != 255)
    probability = second.sigmoid()
    theirs = tuple((each * factor).sum((2, 3)) for each in (probability * target, probability, target))
    for sums in (ours, theirs):
        (sums[0] / (sums[1] + 2)).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(first.grad, second.grad)


@pytest.mark.parametrize("over", ["image", "batch"])
def test_tversky_equals_its_formula(over):
    logits, target = scores()
    hit, predicted, true = one_hot_sums(logits, target)
    if over == "batch":
        hit, predicted, true = (each.sum(0, keepdim=True) for each in (hit, predicted, true))
    expected = 1 - (hit + 0.5) / (hit + 0.2 * (predicted - hit) + 0.9 * (true - hit) + 0.5)
    options = {"alpha": 0.2, "beta": 0.9, "smooth": 0.5, "over": over}
    torch.testing.assert_close(tversky_loss(logits, target, reduction="none", **options), expected)
    powered = tversky_loss(logits, target, gamma=0.75, reduction="none", **options)
    torch.testing.assert_close(powered, expected**0.75)


def test_identities():
    logits, target = scores()
    hit, predicted, true = one_hot_sums(logits, target)
    dice = 1 - (2 * hit + 2) / (predicted + true + 2)
    torch.testing.assert_close(DiceLoss(reduction="none")(logits, target), dice)
    torch.testing.assert_close(TverskyLoss(0.5, 0.5)(logits, target), dice.mean())
    jaccard = 1 - (hit + 1) / (predicted + true - hit + 1)
    torch.testing.assert_close(IoULoss()(logits, target), jaccard.mean())
    precision, recall = hit / predicted, hit / true
    f2 = 1 - 5 * precision * recall / (4 * precision + recall)
    torch.testing.assert_close(DiceLoss(beta=2, smooth=0)(logits, target), f2.mean())
    torch.testing.assert_close(FocalTverskyLoss(gamma=1.0)(logits, target), TverskyLoss()(logits, target))


def test_generalized_dice_equals_its_formula():
    logits, target = scores()
    target[0] = 1  # the others are absent: their weight is that of class 1
    hit, predicted, true = one_hot_sums(logits, target)
    weight = (1 / true**2).where(true > 0, (1 / true[0, 1] ** 2))
    expected = 1 - (2 * (weight * hit).sum(1) + 1e-5) / ((weight * (predicted + true)).sum(1) + 1e-5)
    torch.testing.assert_close(generalized_dice_loss(logits, target, reduction="none"), expected)


@pytest.mark.parametrize("loss", [DiceLoss(smooth=0), IoULoss(), TverskyLoss(), FocalTverskyLoss()])
def test_perfect_prediction_costs_nothing(loss):
    _, target = scores()
    logits = (F.one_hot(target, 4).movedim(-1, 1).float() * 2 - 1) * 1e3
    assert loss(logits, target) < 1e-6


@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_an_absent_class_that_nobody_predicts_costs_nothing(smooth):
    target = torch.zeros(1, 8, dtype=torch.long)
    logits = torch.tensor([1e3, -1e3, -1e3]).view(1, 3, 1).expand(1, 3, 8).clone().requires_grad_()
    loss = tversky_loss(logits, target, smooth=smooth)
    loss.backward()
    assert loss == 0
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("over", ["image", "batch"])
def test_generalized_dice_of_nothing_is_nothing_without_smoothing(over):
    logits = torch.randn(2, 3, 4, requires_grad=True)
    loss = generalized_dice_loss(logits, torch.full((2, 4), 255), smooth=0.0, over=over)
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
@pytest.mark.parametrize("loss", [tversky_loss, generalized_dice_loss])
def test_weights_and_soft_targets_that_learn_get_their_gradient(loss, mode):
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.rand(2, 2, 3, 4, dtype=torch.float64, generator=generator)
    weight = torch.rand(2, 4, dtype=torch.float64, generator=generator)
    learned = [each.requires_grad_() for each in (logits, weight)]
    if mode == "multiclass":
        target = torch.tensor([[0, 1, 2, 255], [2, 2, 0, 1]])
    else:
        learned.append(target.requires_grad_())
    value = loss(logits, target, mode=mode, weight=weight)
    torch.testing.assert_close(value, loss(logits, target.detach(), mode=mode, weight=weight.detach()))

    def of_all(logits, weight, target=target):
        return loss(logits, target, mode=mode, weight=weight)

    assert torch.autograd.gradcheck(of_all, learned)


def test_ignored_pixels_never_move_the_loss():
    """mmseg's DiceLoss ignores channel 255 instead of the pixels: open-mmlab/mmsegmentation#3172."""
    logits, target = scores()
    target[:, :2] = 255
    kept, cut = target[:, 2:], logits[:, :, 2:]
    for loss in (DiceLoss(), IoULoss(over="batch"), TverskyLoss(), FocalTverskyLoss()):
        expected = loss(cut, kept)
        for change in (0, 100):
            moved = logits.clone()
            moved[:, 1, :2] += change
            torch.testing.assert_close(loss(moved, target), expected)


def test_order_of_images_and_classes_does_not_matter():
    logits, target = scores()
    order = torch.tensor([2, 0, 3, 1])
    renamed = torch.argsort(order)[target]
    for loss in (DiceLoss(), IoULoss(over="batch"), TverskyLoss()):
        torch.testing.assert_close(loss(logits[:, order], renamed), loss(logits, target))
        torch.testing.assert_close(loss(logits.flip(0), target.flip(0)), loss(logits, target))


@pytest.mark.openmmlab
def test_binary_equals_mmdets_naive_dice_on_sampled_points():
    from mmdet.models.losses import DiceLoss as Theirs

    logits, target = torch.randn(7, 50), (torch.rand(7, 50) > 0.5).float()
    theirs = Theirs(use_sigmoid=True, activate=True, naive_dice=True, eps=1.0)(logits, target, avg_factor=5)
    # Our smooth stands above and below the fraction without its factor of 2.
    ours = DiceLoss(mode="binary", smooth=0.5)(logits, target, divisor=5)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_a_second_backward_pass_gives_the_same(mode):
    """The first one turns what was kept into the gradient."""
    logits, target = scores()
    logits.requires_grad_()
    if mode == "multilabel":
        target = torch.rand(logits.shape, dtype=logits.dtype)
    value = DiceLoss(mode=mode)(logits, target)
    first, second = (torch.autograd.grad(value, logits, retain_graph=True)[0] for _ in range(2))
    assert first.data_ptr() != second.data_ptr()
    torch.testing.assert_close(first, second)


def test_peak_memory_stays_near_the_size_of_the_logits(monkeypatch):
    """Above its inputs the loss needs one softmax: what torch allocates on the CPU, summed up, is the oracle."""
    monkeypatch.setattr(
        "cvplugins.losses.chunks.VALUES_AT_ONCE", 1 << 14
    )  # as small to these logits as it is to real ones
    logits = torch.randn(2, 150, 64, 64, requires_grad=True)
    target = torch.randint(0, 150, (2, 64, 64))
    peak = peak_memory(lambda: DiceLoss()(logits, target).backward())
    assert logits.nbytes <= peak <= 1.5 * logits.nbytes


def test_wrong_options_are_named():
    logits, target = scores()
    with pytest.raises(ValueError, match="unknown mode 'binray'; use one of 'multiclass'"):
        DiceLoss(mode="binray")
    with pytest.raises(ValueError, match="unknown over 'images'; use 'image' or 'batch'"):
        DiceLoss(over="images")
    with pytest.raises(ValueError, match=r"does not fit logits .* in mode 'binary'"):
        DiceLoss(mode="binary")(logits, target)
    with pytest.raises(ValueError, match="class_weight holds 2 numbers"):
        DiceLoss(class_weight=[1.0, 2.0])(logits, target)
