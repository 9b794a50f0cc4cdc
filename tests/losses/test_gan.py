"""Adversarial losses against their formulas score by score, MONAI's, and penalties against gradients by hand."""

import math

import pytest
import torch
from torch import nn

from cvplugins.losses import GANLoss, discriminator_loss, generator_loss, gradient_penalty, r1_penalty

KINDS = ["vanilla", "lsgan", "hinge", "wgan"]


def for_discriminator(kind, score, real):
    """The loss of one score as the papers write it."""
    if kind == "vanilla":
        probability = 1 / (1 + math.exp(-score))
        return -math.log(probability if real else 1 - probability)
    if kind == "lsgan":
        return (score - (1 if real else 0)) ** 2
    if kind == "hinge":
        return -min(0.0, -1 + score) if real else -min(0.0, -1 - score)
    return -score if real else score


def for_generator(kind, score):
    return -score if kind in ("hinge", "wgan") else for_discriminator(kind, score, real=True)


def patches():
    return torch.randn(4, 1, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2


@pytest.mark.parametrize("kind", KINDS)
def test_values_equal_the_formulas(kind):
    scores = patches()
    for real in (True, False):
        expected = scores.clone().apply_(lambda score: for_discriminator(kind, score, real))  # noqa: B023
        ours = discriminator_loss(scores, real, kind=kind, reduction="none")
        torch.testing.assert_close(ours, expected)
        torch.testing.assert_close(GANLoss(kind)(scores, real), expected.mean())
    expected = scores.clone().apply_(lambda score: for_generator(kind, score))
    torch.testing.assert_close(generator_loss(scores, kind=kind, reduction="none"), expected)
    torch.testing.assert_close(GANLoss(kind)(scores, True, for_generator=True), expected.mean())
    torch.testing.assert_close(GANLoss(kind, reduction="sum")(scores, True, for_generator=True), expected.sum())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_targets_per_sample_and_per_score_equal_a_bool_for_each(kind, dtype):
    scores = patches()
    loss = GANLoss(kind, reduction="none")
    is_real = torch.tensor([1, 0, 0, 1])
    expected = torch.stack([loss(one, bool(real)) for one, real in zip(scores, is_real, strict=True)])
    torch.testing.assert_close(loss(scores, is_real.to(dtype)), expected)
    torch.testing.assert_close(loss(scores, is_real.to(dtype).view(4, 1, 1, 1).expand_as(scores)), expected)


def test_labels_are_smoothed_for_the_discriminator_alone():
    scores = patches()
    smooth = torch.full_like(scores, 0.9)
    expected = nn.functional.binary_cross_entropy_with_logits(scores, smooth)
    loss = GANLoss(real_label=0.9)
    torch.testing.assert_close(loss(scores, True), expected)
    torch.testing.assert_close(loss(scores, False), GANLoss()(scores, False))
    torch.testing.assert_close(loss(scores, True, for_generator=True), generator_loss(scores))
    torch.testing.assert_close(GANLoss("lsgan", 0.9)(scores, True), (scores - 0.9).square().mean())


def test_weight_per_sample_is_that_of_all_its_patches():
    scores, weight = patches(), torch.tensor([1.0, 0.0, 2.0, 0.5], dtype=torch.float64)
    whole = weight.view(4, 1, 1, 1).expand_as(scores)
    for call in ({"target": True}, {"target": True, "for_generator": True}):
        torch.testing.assert_close(
            GANLoss("lsgan")(scores, weight=weight, **call), GANLoss("lsgan")(scores, weight=whole, **call)
        )


@pytest.mark.parametrize("kind", KINDS)
def test_generator_is_finite_for_sure_discriminators(kind):
    scores = torch.tensor([-1e4, 1e4, 0.0], requires_grad=True)
    loss = generator_loss(scores, kind=kind, reduction="sum")
    loss.backward()
    assert loss.isfinite()
    assert scores.grad.isfinite().all()
    assert scores.grad[0] < 0  # it learns most where the discriminator is sure: the loss does not saturate
    assert generator_loss(torch.zeros(0, 1, requires_grad=True), kind=kind) == 0
    assert torch.autograd.gradcheck(lambda each: generator_loss(each, kind=kind), patches().requires_grad_())
    assert generator_loss(torch.zeros(2, 1, dtype=torch.float16), kind=kind).dtype == torch.float32


def test_wrong_arguments_are_named():
    scores = patches()
    for make in (GANLoss, lambda kind: discriminator_loss(scores, True, kind=kind)):
        with pytest.raises(ValueError, match="unknown kind 'hing'; use one of 'vanilla', 'lsgan', 'hinge', 'wgan'"):
            make(kind="hing")
    with pytest.raises(ValueError, match=r"real_label 0.9 does not fit kind 'hinge'"):
        GANLoss("hinge", real_label=0.9)
    with pytest.raises(ValueError, match="target False does not fit a generator"):
        GANLoss()(scores, False, for_generator=True)
    with pytest.raises(ValueError, match=r"target \(3,\) does not fit scores \(4, 1, 3, 2\)"):
        GANLoss()(scores, torch.ones(3))
    with pytest.raises(ValueError, match=r"weight \(3,\) does not fit scores \(4, 1, 3, 2\)"):
        generator_loss(scores, weight=torch.ones(3))
    samples = torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"fake \(1, 3\) does not fit real \(2, 3\)"):
        gradient_penalty(torch.sum, samples, samples[:1])
    with pytest.raises(ValueError, match=r"real \(3,\) does not fit"):
        r1_penalty(torch.sum, samples[0])
    with pytest.raises(ValueError, match=r"weight \(3,\) does not fit"):
        r1_penalty(torch.sum, samples, weight=torch.ones(3))
    with pytest.raises(ValueError, match="unknown reduction 'avg'"):
        r1_penalty(torch.sum, samples, reduction="avg")


@pytest.mark.parametrize(
    ("kind", "criterion", "activation"),
    [("vanilla", "bce", nn.Identity()), ("lsgan", "least_squares", nn.Identity()), ("hinge", "hinge", nn.Tanh())],
)
def test_equals_monai(kind, criterion, activation):
    """Its hinge loss takes tanh of the scores, and gives the generator the discriminator's form."""
    losses = pytest.importorskip("monai.losses")
    theirs = losses.PatchAdversarialLoss(criterion=criterion, no_activation_leastsq=True)
    scores = patches().float()
    for real in (True, False):
        expected = theirs(scores, target_is_real=real, for_discriminator=True)
        torch.testing.assert_close(GANLoss(kind)(activation(scores), real), expected)
    expected = theirs(scores, target_is_real=True, for_discriminator=False)
    constant = 1 if kind == "hinge" else 0  # below a score of 1 the forms differ by this only
    torch.testing.assert_close(GANLoss(kind)(activation(scores), True, for_generator=True) + constant, expected)


def quadratic(samples):
    """``x0 ** 2 + 3 * x0 * x1``, whose gradient is ``(2 * x0 + 3 * x1, 3 * x0)``."""
    return samples[:, 0] ** 2 + 3 * samples[:, 0] * samples[:, 1]


def gradient_of_quadratic(sample):
    return [2 * sample[0] + 3 * sample[1], 3 * sample[0]]


def test_penalties_equal_gradients_by_hand():
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(2, 5, 2, generator=generator, dtype=torch.float64)
    torch.manual_seed(3)
    ours = gradient_penalty(quadratic, real, fake, target_norm=0.5, reduction="none")
    torch.manual_seed(3)
    shares = torch.rand(5, 1, dtype=torch.float64)
    expected, squared = [], []
    for one, other, share in zip(real.tolist(), fake.tolist(), shares.tolist(), strict=True):
        between = [a + share[0] * (b - a) for a, b in zip(one, other, strict=True)]
        expected.append((math.hypot(*gradient_of_quadratic(between)) - 0.5) ** 2)
        squared.append(sum(each**2 for each in gradient_of_quadratic(one)))
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64))
    squared = torch.tensor(squared, dtype=torch.float64)
    torch.testing.assert_close(r1_penalty(quadratic, real, reduction="none"), squared)
    weight = torch.arange(5.0, dtype=torch.float64)
    torch.testing.assert_close(GANLoss().r1_penalty(quadratic, real, weight=weight), (squared * weight).mean())
    torch.manual_seed(3)
    total = GANLoss(reduction="sum").gradient_penalty(quadratic, real, fake, target_norm=0.5)
    torch.testing.assert_close(total, ours.sum())


def test_points_lie_between_real_and_fake_one_share_a_sample():
    seen = []

    def record(samples):
        seen.append(samples.detach())
        return samples.sum((1, 2, 3))

    gradient_penalty(record, torch.zeros(64, 3, 4, 4), torch.ones(64, 3, 4, 4))
    shares = seen[0].flatten(1)
    assert ((shares >= 0) & (shares <= 1)).all()
    assert not shares.std(1).any()
    assert 0.2 < shares[:, 0].std() < 0.4  # of a uniform distribution it is 0.29


def small_discriminator(weights, bias, last):
    return lambda samples: (samples.flatten(1) @ weights + bias).tanh() @ last


@pytest.mark.parametrize("penalty", ["gradient_penalty", "r1_penalty"])
def test_penalties_are_differentiable_twice(penalty):
    torch.manual_seed(0)
    real, fake = torch.randn(2, 3, 1, 2, 2, dtype=torch.float64)
    parameters = [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in ((4, 3), (3,), (3, 1))]

    def function(*parameters):
        torch.manual_seed(1)
        discriminator = small_discriminator(*parameters)
        if penalty == "r1_penalty":
            return r1_penalty(discriminator, real)
        return gradient_penalty(discriminator, real, fake)

    assert torch.autograd.gradcheck(function, parameters)
    assert torch.autograd.gradgradcheck(function, parameters)


@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_penalties_of_flat_and_steep_discriminators_are_finite(scale):
    network = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    real, fake = torch.randn(2, 5, 4).requires_grad_()
    with torch.no_grad():
        for each in network.parameters():
            each.mul_(scale)
    for loss in (gradient_penalty(network, real, fake), r1_penalty(network, real)):
        network.zero_grad()
        loss.backward()
        assert loss.isfinite()
        assert all(each.grad is None or each.grad.isfinite().all() for each in network.parameters())


def test_penalties_leave_the_samples_alone_and_take_none():
    network = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    real, fake = torch.randn(5, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    plain = torch.randn(5, 4)
    gradient_penalty(network, real, fake).backward()
    r1_penalty(network, plain).backward()
    assert real.grad is None
    assert fake.grad is None
    assert not plain.requires_grad
    assert network[0].weight.grad.abs().sum() > 0
    empty = torch.zeros(0, 4)
    for loss in (gradient_penalty(network, empty, empty), r1_penalty(network, empty)):
        network.zero_grad()
        loss.backward()
        assert loss == 0
        assert not network[0].weight.grad.any()


def test_penalties_are_in_full_precision_under_autocast():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    real = torch.randn(5, 4)
    expected = r1_penalty(network, real)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = r1_penalty(network, real)
        network(real)  # leaves its weights in half precision in autocast's cache
        after = r1_penalty(network, real)
        of_half = r1_penalty(network, real.bfloat16())
    torch.testing.assert_close(inside, expected)
    torch.testing.assert_close(after, expected)
    torch.testing.assert_close(of_half, r1_penalty(network, real.bfloat16().float()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_moves_to_the_mean_of_the_data(kind):
    torch.manual_seed(0)
    shift = nn.Parameter(torch.tensor(-1.0))
    discriminator = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    loss = GANLoss(kind)
    theirs = torch.optim.Adam(discriminator.parameters(), 0.01, betas=(0.5, 0.9))
    ours = torch.optim.Adam([shift], 0.05, betas=(0.0, 0.9))

    def penalty(real, fake):
        if kind == "wgan":
            # In one dimension a slope of 1 cannot turn into one of -1 but through 0, which a factor of 10 forbids.
            return 0.1 * loss.gradient_penalty(discriminator, real, fake)
        return loss.r1_penalty(discriminator, real)

    for step in range(400):
        real, noise = 2 + 0.5 * torch.randn(64, 1), 0.5 * torch.randn(64, 1)
        fake = (noise + shift).detach()
        theirs.zero_grad()
        (loss(discriminator(real), True) + loss(discriminator(fake), False) + penalty(real, fake)).backward()
        theirs.step()
        if step % 4 == 3:
            ours.zero_grad()
            loss(discriminator(noise + shift), True, for_generator=True).backward()
            ours.step()
    assert abs(shift.item() - 2) < 0.5
