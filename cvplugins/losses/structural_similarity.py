"""Structural similarity of images as a loss, over one scale or several.

Both maps that the index is made of come from the sum and the difference of the images: with ``d = x - y``,
``1 - luminance = mean(d) ** 2 / (mean(x) ** 2 + mean(y) ** 2 + C1)`` and likewise with variances for contrast and
structure. Equal images so cost exactly 0, the index stays in [-1, 1] whatever rounding does to a variance, and four
maps have to be blurred instead of five.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from .chunks import values_at_once
from .contract import Loss
from .once import once_differentiable
from .reduction import at_least_float32, check_reduction, constant, full_precision, weight_and_reduce

__all__ = ["MSSSIMLoss", "SSIMLoss", "ms_ssim_loss", "ssim_loss"]

K1, K2 = 0.01, 0.03  # of the paper; everyone keeps them
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ssim_loss(
    images: Tensor,
    target: Tensor,
    *,
    window: int = 11,
    sigma: float = 1.5,
    value_range: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """One minus the structural similarity (SSIM), in [0, 2].

    Over all windows that lie inside of the image, as in the paper and in scikit-image with ``gaussian_weights=True,
    use_sample_covariance=False``; torchmetrics also counts windows that reach over the border. Reference: Wang et al.,
    Image Quality Assessment: From Error Visibility to Structural Similarity, TIP 2004.

    Args:
        images: Predicted images, floating point, shape ``(N, C, H, W)``.
        target: The same shape.
        window: Side of the Gaussian window in pixels.
        sigma: Its standard deviation in pixels.
        value_range: Largest minus smallest possible value: 1, 2 for values from -1 to 1, 255.
        weight: Factor per image, ``(N,)``.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides by; the number of images if None.

    Returns:
        A scalar, or a loss per image ``(N,)``, the mean over channels and windows, for ``"none"``; 0 for no images.
        At least float32.

    Raises:
        TypeError: Images of integers.
        ValueError: An option or a shape does not fit, or images are smaller than the window.

    Example:
        >>> images = torch.rand(2, 3, 16, 16)
        >>> ssim_loss(images, images)
        tensor(0.)
    """
    _check_options(window, sigma, value_range)
    images, target = _fitting(images, target, window)
    loss = _mean_loss(images, target, window, sigma, value_range)
    return weight_and_reduce(loss.mean(1), weight, reduction, divisor)


def ms_ssim_loss(
    images: Tensor,
    target: Tensor,
    *,
    window: int = 11,
    sigma: float = 1.5,
    value_range: float = 1.0,
    scale_weights: Sequence[float] = SCALE_WEIGHTS,
    weight: Tensor | None = None,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """One minus the structural similarity over several scales (MS-SSIM), in [0, 1].

    At each scale the mean contrast and structure, at the last one the mean SSIM, to the power of the scale's weight;
    their product for each channel. Between scales the images are halved by averages of 2 x 2 pixels; an odd last row or
    column is dropped. A negative mean counts as 0, because it has no real power: the channel then costs 1 and has no
    gradient. Reference: Wang et al., Multi-scale Structural Similarity for Image Quality Assessment, Asilomar 2003.

    Args:
        images: Predicted images, floating point, shape ``(N, C, H, W)``. With ``S`` scales the sides are at least
            ``window * 2 ** (S - 1)``, which is 176 by default.
        target: The same shape.
        window: Side of the Gaussian window in pixels.
        sigma: Its standard deviation in pixels.
        value_range: Largest minus smallest possible value: 1, 2 for values from -1 to 1, 255.
        scale_weights: Power of each scale, from fine to coarse, at least 0; as many as there are scales.
        weight: Factor per image, ``(N,)``.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides by; the number of images if None.

    Returns:
        A scalar, or a loss per image ``(N,)``, the mean over channels, for ``"none"``; 0 for no images.
        At least float32.

    Raises:
        TypeError: Images of integers.
        ValueError: An option or a shape does not fit, or images are too small for the window at the last scale.

    Example:
        >>> images = torch.rand(2, 3, 44, 44)
        >>> ms_ssim_loss(images, images, scale_weights=[0.2, 0.3, 0.5])
        tensor(0.)
    """
    _check_options(window, sigma, value_range, scale_weights)
    images, target = _fitting(images, target, window, len(scale_weights))
    losses = []
    for _ in scale_weights[:-1]:
        losses.append(_mean_loss(images, target, window, sigma, value_range, contrast_only=True))
        images, target = F.avg_pool2d(images, 2), F.avg_pool2d(target, 2)
    losses.append(_mean_loss(images, target, window, sigma, value_range))
    similarity = _product_of_powers(1 - torch.stack(losses, dim=-1), scale_weights)
    return weight_and_reduce(1 - similarity.mean(1), weight, reduction, divisor)


class SSIMLoss(Loss):
    """Module form of :func:`ssim_loss`.

    Args:
        window: Side of the Gaussian window in pixels.
        sigma: Its standard deviation in pixels.
        value_range: Largest minus smallest possible value.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
    """

    def __init__(self, window: int = 11, sigma: float = 1.5, value_range: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        _check_options(window, sigma, value_range)
        self.window = window
        self.sigma = sigma
        self.value_range = value_range
        self.reduction = check_reduction(reduction)

    def forward(self, images: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor`` and ``reduction``."""
        options = {"reduction": self.reduction, **call}
        return ssim_loss(images, target, window=self.window, sigma=self.sigma, value_range=self.value_range, **options)


class MSSSIMLoss(Loss):
    """Module form of :func:`ms_ssim_loss`.

    Args:
        window: Side of the Gaussian window in pixels.
        sigma: Its standard deviation in pixels.
        value_range: Largest minus smallest possible value.
        scale_weights: Power of each scale, from fine to coarse.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
    """

    def __init__(
        self,
        window: int = 11,
        sigma: float = 1.5,
        value_range: float = 1.0,
        scale_weights: Sequence[float] = SCALE_WEIGHTS,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        _check_options(window, sigma, value_range, scale_weights)
        self.window = window
        self.sigma = sigma
        self.value_range = value_range
        self.scale_weights = tuple(scale_weights)
        self.reduction = check_reduction(reduction)

    def forward(self, images: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor`` and ``reduction``."""
        options = {"reduction": self.reduction, **call}
        return ms_ssim_loss(
            images,
            target,
            window=self.window,
            sigma=self.sigma,
            value_range=self.value_range,
            scale_weights=self.scale_weights,
            **options,
        )


class _MeanLoss(Function):
    """Mean over windows of ``1 - luminance * contrast`` or ``1 - contrast``, ``(N, C)``.

    Keeps its gradient, which is as large as the image, in place of a dozen of maps.
    """

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, target: Tensor, window: int, sigma: float, value_range: float, contrast_only: bool
    ) -> Tensor:
        kernel = gaussian_window(images, window, sigma)
        total, difference = images + target, images - target
        maps = torch.stack([total, difference, total.square(), difference.square()])
        blurred = _blur(maps, kernel)
        mean, squared_mean = blurred[:2], blurred[:2].square()
        variance = (blurred[2:] - squared_mean).clamp_(min=0)  # rounding may leave less than 0
        contrast, to_variance = _share_of_difference(variance, (K2 * value_range) ** 2)
        loss, to_squared_mean = contrast, torch.zeros_like(mean)
        if not contrast_only:
            luminance, to_squared_mean = _share_of_difference(squared_mean, (K1 * value_range) ** 2)
            # 1 - (1 - l) * (1 - c), without the difference of two numbers close to 1.
            loss = luminance + contrast - luminance * contrast
            to_squared_mean, to_variance = to_squared_mean.mul_(1 - contrast), to_variance.mul_(1 - luminance)
        if images.requires_grad or target.requires_grad:
            # In place from here on: on a CPU fresh memory costs more than the arithmetic.
            to_mean = to_squared_mean.sub_(to_variance).mul_(mean).mul_(2)
            # The transpose of a blur is a blur with zeros around. As a transposed convolution, a GPU would take TF32.
            back = _blur(F.pad(torch.cat([to_mean, to_variance]), [window - 1] * 4), kernel)
            of_total, of_difference = back[:2].addcmul_(maps[:2], back[2:], value=2).div_(loss[0, 0].numel())
            of_images = of_total + of_difference if images.requires_grad else None
            ctx.save_for_backward(of_images, of_total - of_difference if target.requires_grad else None)
        return loss.mean((2, 3))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients = (each if each is None else each * grad[..., None, None] for each in ctx.saved_tensors)
        return (*gradients, None, None, None, None)


def _mean_loss(
    images: Tensor, target: Tensor, window: int, sigma: float, value_range: float, contrast_only: bool = False
) -> Tensor:
    if not len(images):
        return images.sum((2, 3))  # a convolution needs a channel
    # A few images at a time: all their maps would need forty times the memory of the images.
    size = max(1, values_at_once(images) // images[0].numel())
    parts = zip(torch.split(images, size), torch.split(target, size), strict=True)
    options = (window, sigma, value_range, contrast_only)
    return torch.cat([_MeanLoss.apply(*part, *options) for part in parts])  # type: ignore[no-untyped-call]


def _share_of_difference(powers: Tensor, constant: float) -> tuple[Tensor, Tensor]:
    """Return the power of the difference over the mean of both powers, sum and difference, and its gradient."""
    below = powers.mean(0) + constant  # this mean is the sum of the powers of the two images
    share = powers[1] / below
    return share, torch.stack([-share / 2, 1 - share / 2]).div_(below)


def gaussian_window(images: Tensor, window: int, sigma: float) -> Tensor:
    """Return the weights of a Gaussian of ``window`` pixels, whose sum is 1, in the type of ``images``.

    >>> gaussian_window(torch.zeros(1), 3, 0.5)
    tensor([0.1065, 0.7870, 0.1065])
    """
    offset = torch.arange(window, dtype=images.dtype, device=images.device) - (window - 1) / 2
    kernel = torch.exp(-offset.square() / (2 * sigma**2))
    return kernel / kernel.sum()


def _blur(maps: Tensor, kernel: Tensor) -> Tensor:
    """Average ``(*, H, W)`` over the windows that lie inside: down the columns, then along the rows.

    As channels of one image all maps go through one convolution, which the libraries vectorise over channels.
    """
    channels = maps.flatten(0, -3).unsqueeze(0)
    kernel = kernel.expand(channels.shape[1], 1, 1, len(kernel))
    with full_precision(maps):
        down = F.conv2d(channels, kernel.transpose(2, 3), groups=len(kernel))
        along = F.conv2d(down, kernel, groups=len(kernel))
    return along.reshape(*maps.shape[:-2], *along.shape[2:])


def _product_of_powers(means: Tensor, powers: Sequence[float]) -> Tensor:
    """Return the product of ``means ** powers`` over the last dimension, 0 where a mean is not positive."""
    positive = (means > 0).all(-1)
    logarithms = means.where(positive.unsqueeze(-1), means.new_ones(())).log()
    return (logarithms * constant(powers, means)).sum(-1).exp() * positive


def _check_options(window: int, sigma: float, value_range: float, scale_weights: Sequence[float] = (1.0,)) -> None:
    if window < 1:
        raise ValueError(f"window must be at least 1, not {window}")
    for name, value in (("sigma", sigma), ("value_range", value_range)):
        if value <= 0:
            raise ValueError(f"{name} must be above 0, not {value}")
    if not len(scale_weights) or min(scale_weights) < 0:
        raise ValueError(f"scale_weights must be one number or more, each at least 0, not {scale_weights}")


def _fitting(images: Tensor, target: Tensor, window: int, scales: int = 1) -> tuple[Tensor, Tensor]:
    if images.shape != target.shape or images.ndim != 4:
        raise ValueError(
            f"target {tuple(target.shape)} does not fit images {tuple(images.shape)}: expected (N, C, H, W) of both"
        )
    for each in (images, target):
        if not each.is_floating_point():
            raise TypeError(f"images hold {each.dtype}; expected floating point, call .float() and set value_range")
    smallest = window * 2 ** (scales - 1)
    if min(images.shape[2:]) < smallest:
        raise ValueError(
            f"a window of {window} pixels does not fit into images of {images.shape[2]} x {images.shape[3]} pixels "
            f"at scale {scales}: both sides have to be at least {smallest}"
        )
    return at_least_float32(images), at_least_float32(target)
