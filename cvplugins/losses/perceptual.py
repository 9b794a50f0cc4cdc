"""Losses that compare images by feature maps of a network: content, style, and what a discriminator sees."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from .contract import Loss
from .features import IMAGENET_MEAN, IMAGENET_STD, FrozenFeatures, feature_maps
from .reduction import at_least_float32, check_reduction, constant, full_precision, weight_and_reduce

__all__ = [
    "FeatureMatchingLoss",
    "PerceptualLoss",
    "StyleLoss",
    "feature_matching_loss",
    "gram_matrix",
    "perceptual_loss",
    "style_loss",
]

DISTANCES = ("l1", "l2")


def perceptual_loss(
    features: Any,
    target_features: Any,
    *,
    distance: str = "l2",
    layer_weight: Sequence[float] | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Distance of feature maps, averaged over each map and summed over the layers.

    Reference: Johnson et al., Perceptual Losses for Real-Time Style Transfer, ECCV 2016, arXiv:1603.08155. BasicSR
    and mmagic take l1 instead of the paper's l2.

    Args:
        features: Feature maps of the prediction, each ``(N, C, *)``: a tensor, or lists, tuples and dicts of them.
        target_features: The same of the target; no gradient reaches them.
        distance: ``"l1"``: absolute difference. ``"l2"``: squared difference.
        layer_weight: Factor of each feature map; 1 if None.
        weight: Factor per image, ``(N,)``.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``, over images.
        divisor: What ``"mean"`` divides by; the number of images if None.

    Returns:
        A scalar, or ``(N,)`` for ``"none"``; 0 for no images. At least float32, also inside autocast.

    Raises:
        ValueError: Shapes, the number of maps, or an option do not fit.

    Example:
        >>> fine, coarse = torch.ones(1, 2, 4, 4), torch.ones(1, 4, 2, 2)
        >>> perceptual_loss([fine, 2 * coarse], [0 * fine, coarse], layer_weight=[0.5, 1.0])
        tensor(1.5000)
    """
    pairs = _pairs(features, target_features)
    each = torch.stack([_distance(one, other, distance) for one, other in pairs])
    return weight_and_reduce(_weighted(each, layer_weight).sum(0), weight, reduction, divisor)


def feature_matching_loss(
    features: Any,
    target_features: Any,
    *,
    distance: str = "l1",
    layer_weight: Sequence[float] | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Distance of feature maps, averaged over each map and over the layers.

    Reference: Salimans et al. 2016, arXiv:1606.03498, with the per-layer l1 of pix2pixHD, Wang et al. 2018,
    arXiv:1711.11585. Give what a discriminator's layers gave for the fake and the real images, without its scores.

    Args:
        features: Feature maps of the prediction, each ``(N, C, *)``: a tensor, or lists, tuples and dicts of them;
            the lists of several scales count as one.
        target_features: The same of the target; no gradient reaches them.
        distance: ``"l1"``: absolute difference. ``"l2"``: squared difference.
        layer_weight: Factor of each feature map; 1 if None.
        weight: Factor per image, ``(N,)``.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``, over images.
        divisor: What ``"mean"`` divides by; the number of images if None.

    Returns:
        A scalar, or ``(N,)`` for ``"none"``; 0 for no images. At least float32, also inside autocast.

    Raises:
        ValueError: Shapes, the number of maps, or an option do not fit.

    Example:
        >>> fake, real = [torch.ones(1, 2, 4, 4), torch.ones(1, 4)], [torch.zeros(1, 2, 4, 4), torch.ones(1, 4)]
        >>> feature_matching_loss(fake, real)
        tensor(0.5000)
    """
    pairs = _pairs(features, target_features)
    each = torch.stack([_distance(one, other, distance) for one, other in pairs])
    return weight_and_reduce(_weighted(each, layer_weight).mean(0), weight, reduction, divisor)


def style_loss(
    features: Any,
    target_features: Any,
    *,
    distance: str = "l2",
    layer_weight: Sequence[float] | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Distance of Gram matrices, averaged over their entries and summed over the layers.

    Reference: Gatys et al., Image Style Transfer Using Convolutional Neural Networks, CVPR 2016, arXiv:1508.06576;
    Gram matrices normalised as in Johnson et al. 2016, arXiv:1603.08155, who sum over the ``C * C`` entries where
    this takes their mean, as BasicSR and mmagic do.

    Args:
        features: Feature maps of the prediction, each ``(N, C, *)``: a tensor, or lists, tuples and dicts of them.
        target_features: The same of the target; the maps need not have the prediction's height and width. No
            gradient reaches them.
        distance: ``"l1"``: absolute difference. ``"l2"``: squared difference.
        layer_weight: Factor of each feature map; 1 if None.
        weight: Factor per image, ``(N,)``.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``, over images.
        divisor: What ``"mean"`` divides by; the number of images if None.

    Returns:
        A scalar, or ``(N,)`` for ``"none"``; 0 for no images. At least float32, also inside autocast.

    Raises:
        ValueError: Shapes, the number of maps, or an option do not fit.

    Example:
        >>> style_loss(torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 4, 4))  # each entry of the Gram matrix is 1 / 2
        tensor(0.2500)
    """
    return perceptual_loss(
        [gram_matrix(each) for each in feature_maps(features)],
        [gram_matrix(each) for each in feature_maps(target_features)],
        distance=distance,
        layer_weight=layer_weight,
        weight=weight,
        reduction=reduction,
        divisor=divisor,
    )


def gram_matrix(features: Tensor) -> Tensor:
    """Return products of channels, summed over the places of a feature map and divided by ``C`` times their number.

    Args:
        features: ``(N, C, *)``.

    Returns:
        ``(N, C, C)``, at least float32, also inside autocast.

    Raises:
        ValueError: ``features`` have no channels.

    Example:
        >>> gram_matrix(torch.ones(1, 2, 4, 4))
        tensor([[[0.5000, 0.5000],
                 [0.5000, 0.5000]]])
    """
    if features.ndim < 2:
        raise ValueError(f"features {tuple(features.shape)} do not fit: expected (N, C, *)")
    flat = at_least_float32(features).unsqueeze(2).flatten(2)  # the unsqueeze is for (N, C)
    products: Tensor = _ProductsOfRows.apply(flat)  # type: ignore[no-untyped-call]
    return products / max(1, flat.shape[1] * flat.shape[2])


class _ProductsOfRows(Function):
    """``x @ x.T`` in full precision, also where autocast surrounds the backward pass."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor) -> Tensor:
        ctx.save_for_backward(flat)
        with full_precision(flat):
            return torch.bmm(flat, flat.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (flat,) = ctx.saved_tensors
        with full_precision(flat):
            return torch.bmm(gradient + gradient.transpose(1, 2), flat)


class _ImageLoss(Loss):
    """What the modules share: a frozen network, or None where feature maps are given, and stored options."""

    features: Callable[[Any], list[Tensor]]
    compare = staticmethod(perceptual_loss)
    vgg_layers: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")  # Johnson et al.

    def __init__(
        self,
        backbone: nn.Module | str | None,
        weights: str | os.PathLike[str] | None = None,
        layers: Sequence[str | int] | None = None,
        layer_weight: Sequence[float] | None = None,
        distance: str = "l2",
        mean: Sequence[float] | None = IMAGENET_MEAN,
        std: Sequence[float] | None = IMAGENET_STD,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if layers is None and isinstance(backbone, str) and backbone.startswith("vgg"):
            layers = self.vgg_layers
        if backbone is None and (weights is not None or layers is not None):
            raise ValueError("weights and layers belong to a backbone; give one, or leave them out")
        self.features = feature_maps if backbone is None else FrozenFeatures(backbone, weights, layers, mean, std)
        self.layer_weight = layer_weight
        self.distance = _check_distance(distance)
        self.reduction = check_reduction(reduction)

    def forward(self, images: Any, target: Any, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight`` ``(N,)``, ``divisor`` and ``reduction``.

        Args:
            images: ``(N, C, H, W)``; feature maps where there is no backbone.
            target: The same of the target.
            call: Options of this call.
        """
        features = self.features(images)
        with torch.no_grad():
            target_features = self.features(target)
        options = {"distance": self.distance, "layer_weight": self.layer_weight, "reduction": self.reduction, **call}
        return self.compare(features, target_features, **options)


class PerceptualLoss(_ImageLoss):
    """Distance of images in the feature maps of a frozen network; see :func:`perceptual_loss`.

    Args:
        backbone: A module, or the name of a torchvision model ("vgg16", "vgg19"); see :class:`FrozenFeatures`.
            None: the loss is given feature maps instead of images.
        weights: Path of a file, ``"torchvision"`` or ``"random"``; a torchvision model needs one of them.
        layers: Which feature maps; ``relu1_2, relu2_2, relu3_3, relu4_3`` of a VGG if None.
        layer_weight: Factor of each feature map.
        distance: ``"l1"`` or ``"l2"``.
        mean: Subtracted from each channel; ImageNet's for images in [0, 1].
        std: What each channel is divided by.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.

    Example:
        >>> loss = PerceptualLoss(nn.Conv2d(3, 8, 3))
        >>> images = torch.rand(2, 3, 6, 6)
        >>> loss(images, images, reduction="none")
        tensor([0., 0.])
    """


class StyleLoss(_ImageLoss):
    """Distance of images in the Gram matrices of feature maps of a frozen network; see :func:`style_loss`.

    Args:
        backbone: A module, or the name of a torchvision model ("vgg19"); see :class:`FrozenFeatures`.
            None: the loss is given feature maps instead of images.
        weights: Path of a file, ``"torchvision"`` or ``"random"``; a torchvision model needs one of them.
        layers: Which feature maps; ``relu1_1`` to ``relu5_1`` of a VGG if None, as in the paper.
        layer_weight: Factor of each Gram matrix.
        distance: ``"l1"`` or ``"l2"``.
        mean: Subtracted from each channel; ImageNet's for images in [0, 1].
        std: What each channel is divided by.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.

    Example:
        >>> loss = StyleLoss(nn.Identity())
        >>> images = torch.rand(2, 3, 6, 6)
        >>> loss(images, images.flip(3)) < 1e-8  # a mirror image has the same style
        tensor(True)
    """

    compare = staticmethod(style_loss)
    vgg_layers = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


class FeatureMatchingLoss(_ImageLoss):
    """Distance of what a discriminator's layers give for fake and real images; see :func:`feature_matching_loss`.

    Args:
        backbone: None: the loss is given feature maps, as in the training of a GAN, where the discriminator runs
            anyway and goes on learning. A module or a name: it is given images; see :class:`FrozenFeatures`.
        weights: Path of a file, ``"torchvision"`` or ``"random"``; a torchvision model needs one of them.
        layers: Which feature maps; ``relu1_2, relu2_2, relu3_3, relu4_3`` of a VGG if None.
        layer_weight: Factor of each feature map.
        distance: ``"l1"`` or ``"l2"``.
        mean: Subtracted from each channel; ImageNet's for images in [0, 1].
        std: What each channel is divided by.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.

    Example:
        >>> FeatureMatchingLoss()([torch.ones(1, 2), torch.ones(1, 4)], [torch.zeros(1, 2), torch.ones(1, 4)])
        tensor(0.5000)
    """

    compare = staticmethod(feature_matching_loss)

    def __init__(
        self,
        backbone: nn.Module | str | None = None,
        weights: str | os.PathLike[str] | None = None,
        layers: Sequence[str | int] | None = None,
        layer_weight: Sequence[float] | None = None,
        distance: str = "l1",
        mean: Sequence[float] | None = IMAGENET_MEAN,
        std: Sequence[float] | None = IMAGENET_STD,
        reduction: str = "mean",
    ) -> None:
        super().__init__(backbone, weights, layers, layer_weight, distance, mean, std, reduction)


def _check_distance(distance: str) -> str:
    if distance not in DISTANCES:
        raise ValueError(f"unknown distance {distance!r}; use 'l1' or 'l2'")
    return distance


def _pairs(features: Any, target_features: Any) -> list[tuple[Tensor, Tensor]]:
    """Return the feature maps of prediction and target side by side, without a gradient for the target."""
    maps, targets = feature_maps(features), feature_maps(target_features)
    if not maps or len(maps) != len(targets):
        raise ValueError(f"a target of {len(targets)} feature maps does not fit {len(maps)}")
    for index, (one, other) in enumerate(zip(maps, targets, strict=True)):
        if one.ndim < 2 or one.shape != other.shape:
            raise ValueError(
                f"feature map {index}: target {tuple(other.shape)} does not fit {tuple(one.shape)}; "
                "expected (N, C, *) for both"
            )
    in_float = [at_least_float32(each.detach()) for each in targets]
    return list(zip([at_least_float32(each) for each in maps], in_float, strict=True))


def _distance(features: Tensor, target: Tensor, distance: str) -> Tensor:
    """Return the mean distance of each image."""
    difference = (features - target).flatten(1)
    return (difference.abs() if _check_distance(distance) == "l1" else difference.square()).mean(1)


def _weighted(each: Tensor, layer_weight: Sequence[float] | None) -> Tensor:
    """Return the distances ``(L, N)`` times the factor of their layer."""
    if layer_weight is None:
        return each
    if len(layer_weight) != len(each):
        raise ValueError(f"layer_weight holds {len(layer_weight)} numbers; expected {len(each)}, one per feature map")
    return each * constant(layer_weight, each).unsqueeze(1)
