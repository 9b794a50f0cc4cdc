"""SSIM and MS-SSIM against a loop over windows in float64, scikit-image and pytorch-msssim."""

import math

import pytest
import torch

from cvplugins.losses import MSSSIMLoss, SSIMLoss, ms_ssim_loss, ssim_loss


def images(size=(2, 3, 9, 8), noise=0.2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(size, generator=generator, dtype=torch.float64)
    return (target + noise * torch.randn(size, generator=generator, dtype=torch.float64)).to(dtype), target.to(dtype)


def slow_maps(one, other, window, sigma, value_range):
    """Luminance, and contrast times structure, of each window of one channel, as equations 13 to 16 of the paper."""
    centre = (window - 1) / 2
    factors = [
        [math.exp(-((i - centre) ** 2 + (j - centre) ** 2) / (2 * sigma**2)) for j in range(window)]
        for i in range(window)
    ]
    factors = torch.tensor(factors, dtype=torch.float64)
    factors = factors / factors.sum()
    c1, c2 = (0.01 * value_range) ** 2, (0.03 * value_range) ** 2
    rows = []
    for i in range(one.shape[0] - window + 1):
        for j in range(one.shape[1] - window + 1):
            x, y = one[i : i + window, j : j + window], other[i : i + window, j : j + window]
            mx, my = (factors * x).sum(), (factors * y).sum()
            vx, vy = (factors * (x - mx) ** 2).sum(), (factors * (y - my) ** 2).sum()
            vxy = (factors * (x - mx) * (y - my)).sum()
            rows.append([(2 * mx * my + c1) / (mx**2 + my**2 + c1), (2 * vxy + c2) / (vx + vy + c2)])
    return torch.tensor(rows, dtype=torch.float64).unbind(1)


def channels(one, other):
    return [list(zip(*pair, strict=True)) for pair in zip(one, other, strict=True)]


@pytest.mark.parametrize(("window", "sigma", "value_range"), [(5, 1.5, 1.0), (4, 0.8, 2.0), (1, 1.0, 255.0)])
def test_ssim_equals_its_formula(window, sigma, value_range):
    one, other = images()
    one, other = one * value_range, other * value_range
    options = {"window": window, "sigma": sigma, "value_range": value_range}
    expected = []
    for image in channels(one, other):
        maps = [slow_maps(*channel, **options) for channel in image]
        expected.append(1 - torch.stack([(luminance * contrast).mean() for luminance, contrast in maps]).mean())
    torch.testing.assert_close(ssim_loss(one, other, reduction="none", **options), torch.stack(expected))


def test_ms_ssim_equals_its_formula():
    one, other = images((2, 2, 17, 14))
    options = {"window": 3, "sigma": 1.0, "value_range": 1.0}
    powers = [0.2, 0.5, 0.4]
    products = torch.ones(2, 2, dtype=torch.float64)
    x, y = one, other
    for power in powers:
        for n, image in enumerate(channels(x, y)):
            for c, channel in enumerate(image):
                luminance, contrast = slow_maps(*channel, **options)
                products[n, c] *= (contrast * luminance if power == powers[-1] else contrast).mean() ** power
        height, width = x.shape[2] // 2, x.shape[3] // 2
        x, y = (each[:, :, : height * 2, : width * 2].unflatten(3, (width, 2)).mean(4) for each in (x, y))
        x, y = (each.unflatten(2, (height, 2)).mean(3) for each in (x, y))
    ours = ms_ssim_loss(one, other, scale_weights=powers, reduction="none", **options)
    torch.testing.assert_close(ours, 1 - products.mean(1))


@pytest.mark.parametrize("value_range", [1.0, 255.0])
def test_ssim_equals_scikit_images(value_range):
    metrics = pytest.importorskip("skimage.metrics")
    one, other = (each * value_range for each in images((2, 3, 40, 33)))
    options = {"gaussian_weights": True, "use_sample_covariance": False, "data_range": value_range}
    expected = [
        1 - metrics.structural_similarity(x.numpy(), y.numpy(), channel_axis=0, **options)
        for x, y in zip(one, other, strict=True)
    ]
    ours = ssim_loss(one, other, value_range=value_range, reduction="none")
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64))


def test_both_equal_pytorch_msssims():
    theirs = pytest.importorskip("pytorch_msssim")
    one, other = images((2, 3, 192, 176))
    options = {"data_range": 1.0, "size_average": False}
    for ours, expected in ((ssim_loss, theirs.ssim), (ms_ssim_loss, theirs.ms_ssim)):
        first, second = one.clone().requires_grad_(), one.clone().requires_grad_()
        loss, reference = ours(first, other, reduction="none"), 1 - expected(second, other, **options)
        # They keep the window in float32.
        torch.testing.assert_close(loss, reference, rtol=1e-5, atol=1e-6)
        loss.sum().backward()
        reference.sum().backward()
        torch.testing.assert_close(first.grad, second.grad, rtol=1e-4, atol=1e-8)


def test_ms_ssim_of_one_scale_is_ssim():
    one, other = images((2, 3, 12, 12))
    torch.testing.assert_close(ms_ssim_loss(one, other, scale_weights=[1.0]), ssim_loss(one, other))


@pytest.mark.parametrize("loss", [SSIMLoss(window=3), MSSSIMLoss(window=3, scale_weights=[0.5, 0.5])])
def test_both_images_have_a_gradient(loss):
    one, other = images((2, 1, 7, 6))
    assert torch.autograd.gradcheck(loss, (one.requires_grad_(), other.requires_grad_()))
    assert torch.autograd.gradcheck(lambda y: loss(one.detach(), y), other)
    torch.testing.assert_close(loss(one, other), loss(other, one))


@pytest.mark.parametrize("value", [0.0, 0.5, 1e4])
def test_equal_images_cost_exactly_nothing(value):
    for one in (torch.rand(2, 3, 44, 44) * value, torch.full((2, 3, 44, 44), value)):
        for loss in (SSIMLoss(), MSSSIMLoss(scale_weights=[0.2, 0.3, 0.5])):
            predicted = one.clone().requires_grad_()
            result = loss(predicted, one)
            result.backward()
            assert result == 0
            assert predicted.grad.abs().max() < 1e-6


def test_the_index_stays_in_its_range_whatever_is_rounded():
    """Far outside of the value range the variance of a window is lost in rounding: it may come out below 0."""
    generator = torch.Generator().manual_seed(0)
    one, other = 1e3 + torch.rand(2, 50, 1, 11, 11, generator=generator)
    loss = ssim_loss(one.requires_grad_(), other, reduction="none")
    loss.sum().backward()
    assert ((loss >= 0) & (loss <= 2)).all()
    assert one.grad.isfinite().all()


def test_opposite_images():
    one = torch.rand(2, 3, 32, 32)
    assert ssim_loss(one, 1 - one) > 1  # structure is the opposite
    predicted = (1 - one).requires_grad_()
    loss = ms_ssim_loss(predicted, one, scale_weights=[0.5, 0.5], reduction="none")
    loss.sum().backward()
    assert (loss == 1).all()  # a negative mean has no real power
    assert not predicted.grad.any()


def test_noise_costs_more_the_stronger_it_is():
    losses = [SSIMLoss()(*images((1, 3, 32, 32), noise)).item() for noise in (0.0, 0.05, 0.1, 0.3)]
    assert losses == sorted(losses)
    assert losses[0] < losses[-1]


def test_what_is_kept_for_backward_is_as_large_as_the_image():
    kept = []
    one, other = images((2, 3, 32, 32))
    one.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: (kept.append(tensor.nbytes), tensor)[1], lambda x: x):
        ssim_loss(one, other)
    assert max(kept) == one.nbytes
    assert sum(kept) < 1.01 * one.nbytes  # torch 2.1 also keeps the loss of each channel, for its mean


def test_wrong_options_are_named():
    one, other = images()
    with pytest.raises(ValueError, match="window of 11 pixels does not fit into images of 9 x 8 pixels"):
        ssim_loss(one, other)
    with pytest.raises(ValueError, match="both sides have to be at least 176"):
        ms_ssim_loss(*images((1, 1, 200, 175)))
    with pytest.raises(TypeError, match=r"images hold torch.uint8; expected floating point"):
        ssim_loss(one.byte(), other)
    with pytest.raises(ValueError, match="window must be at least 1, not 0"):
        SSIMLoss(window=0)
    with pytest.raises(ValueError, match=r"value_range must be above 0, not 0"):
        SSIMLoss(value_range=0)
    with pytest.raises(ValueError, match="scale_weights must be one number or more"):
        MSSSIMLoss(scale_weights=[])
