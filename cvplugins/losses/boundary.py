"""Losses that look at boundaries, through distances: Kervadec's, a Hausdorff distance, weighted cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .contract import Loss
from .cross_entropy import cross_entropy
from .distance import (
    DistanceCache,
    Regions,
    boundary_distance,
    distance_transform,
    nearest_false,
    occurring,
    portions,
    sides_of,
    signed_regions,
)
from .once import once_differentiable
from .reduction import at_least_float32, check_reduction, class_weights, weight_and_reduce
from .region import MODES
from .targets import check_indices

__all__ = [
    "BoundaryCrossEntropyLoss",
    "BoundaryLoss",
    "HausdorffLoss",
    "boundary_cross_entropy",
    "boundary_loss",
    "boundary_weights",
    "hausdorff_loss",
]

IGNORED, NO_CLASS = -1, -2  # in labels


def boundary_loss(
    logits: Tensor,
    target: Tensor,
    *,
    mode: str = "multiclass",
    normalise: bool = False,
    class_weight: Sequence[float] | None = None,
    cache: DistanceCache | None = None,
    weight: Tensor | None = None,
    ignore_index: int = 255,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Probability times the signed distance to the boundary of its class, averaged over the classes.

    Far outside of a class its probability costs much, far inside it earns much. So the loss may be **negative**, and
    a perfect prediction is its minimum but not 0. The gradient vanishes with small regions: add the loss to a
    region loss or cross-entropy, with a weight that rises from about 0.01 during training. A class that does not
    occur in a sample has no boundary and adds nothing there.

    Reference: Kervadec et al., Boundary loss for highly unbalanced segmentation, MIDL 2019, arXiv:1812.07032.

    Args:
        logits: Raw scores on a grid. ``(N, C, H, W)`` or ``(N, C, D, H, W)``, without ``C`` for ``"binary"``.
        target: Class indices without ``C`` for ``"multiclass"``, else masks in the shape of ``logits``, where more
            than 0.5 is inside.
        mode: ``"multiclass"``: a softmax over exclusive classes. ``"multilabel"``: a sigmoid per class.
            ``"binary"``: a sigmoid per pixel.
        normalise: Divide distances by the diagonal of the grid, so that the size of an image does not matter. The
            paper counts pixels.
        class_weight: Factor of each class; a 0 for the background leaves it out as in the paper. The mean stays over
            all classes.
        cache: Where to look for the distance maps of a label.
        weight: Factor per pixel.
        ignore_index: Pixels with this target count for nothing and make no boundary. In masks it marks elements.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``, over pixels.
        divisor: What ``"mean"`` divides by; the number of pixels that are not ignored if None.

    Returns:
        A scalar, or a loss per pixel, ``(N, *)``, for ``"none"``. At least float32.

    Raises:
        ValueError: An option, a shape or an index does not fit, or the pixels lie on no grid.

    Example:
        >>> target = torch.tensor([[[0, 0, 1, 1]]])
        >>> boundary_loss(torch.zeros(1, 2, 1, 4), target)  # half of each class is on the wrong side
        tensor(0.2500)
        >>> boundary_loss(torch.stack([1e3 * (1 - 2 * target), 1e3 * (2 * target - 1)], 1), target)
        tensor(-0.2500)
    """
    logits, target = _on_grid(logits, target, mode, ignore_index)
    find: Callable[[Tensor, int, int], Regions] = signed_regions if cache is None else cache
    rows, maps = find(target, logits.shape[1], ignore_index)
    scale = _scale(logits, rows, class_weight) / (_diagonal(logits) if normalise else 1)
    loss = _over_regions(logits, rows, scale, maps, None, mode)
    return weight_and_reduce(loss, weight, reduction, divisor, _valid(target, mode, ignore_index))


def hausdorff_loss(
    logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 2.0,
    one_sided: bool = False,
    mode: str = "multiclass",
    normalise: bool = False,
    class_weight: Sequence[float] | None = None,
    weight: Tensor | None = None,
    ignore_index: int = 255,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Squared error times a power of the distances to the boundaries of target and prediction, over the classes.

    A smooth stand-in for the Hausdorff distance: an error counts by how far from both boundaries it lies. What is
    predicted with more than 0.5 makes the boundary of the prediction; it counts as constant. It has to be measured
    anew in each step, which costs time where many classes are predicted; ``one_sided`` does without it.

    Reference: Karimi and Salcudean 2019, arXiv:1904.10030, equations 8 and 9 (distance transforms).

    Args:
        logits: See :func:`boundary_loss`.
        target: See :func:`boundary_loss`.
        alpha: Power of the distances.
        one_sided: Measure to the boundary of the target only.
        mode: ``"multiclass"``, ``"multilabel"`` or ``"binary"``.
        normalise: Divide distances by the diagonal of the grid, before the power.
        class_weight: Factor of each class; the mean stays over all classes.
        weight: Factor per pixel.
        ignore_index: Pixels with this target count for nothing and make no boundary. In masks it marks elements.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``, over pixels.
        divisor: What ``"mean"`` divides by; the number of pixels that are not ignored if None.

    Returns:
        A scalar, or a loss per pixel, ``(N, *)``, for ``"none"``. At least float32.

    Raises:
        ValueError: An option, a shape or an index does not fit, or the pixels lie on no grid.

    Example:
        >>> hausdorff_loss(torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 1, 1]]]))  # 0.5² * (2² + 1 + 1 + 2²) / 4
        tensor(0.6250)
    """
    logits, target = _on_grid(logits, target, mode, ignore_index)
    valid = _valid(target, mode, ignore_index)
    # No class has this number; a prediction may well have ignore_index.
    target, ignore_index = _marked(target, target == ignore_index), IGNORED
    classes = logits.shape[1]
    labels = [target] if one_sided else [target, _predicted(logits.detach(), target, mode)]
    there = torch.stack([occurring(label, classes, ignore_index) for label in labels]).any(0)
    rows = there.flatten().nonzero().squeeze(1)
    maps = torch.empty(len(rows), *logits.shape[2:], device=logits.device)
    inside = torch.empty_like(maps, dtype=torch.bool)
    for part in portions(len(rows), maps.shape[1:].numel(), maps.device):
        sides = [sides_of(label, rows[part], classes, ignore_index) for label in labels]
        inside[part] = sides[0][0]
        maps[part] = sum(boundary_distance(*each) ** alpha for each in sides)
    scale = _scale(logits, rows, class_weight) / (_diagonal(logits) ** alpha if normalise else 1)
    loss = _over_regions(logits, rows, scale, maps, inside, mode)
    return weight_and_reduce(loss, weight, reduction, divisor, valid)


def boundary_weights(
    target: Tensor, *, boundary_weight: float = 10.0, sigma: float = 5.0, ignore_index: int = 255
) -> Tensor:
    """Return a weight per pixel that falls with the distance ``d`` to the nearest boundary between two labels.

    It is ``1 + boundary_weight * exp(-d ** 2 / (2 * sigma ** 2))``. A pixel lies on a boundary if a pixel that shares
    a side with it has another label; both have ``d = 0``. A boundary may lie hidden in a strip of ignored pixels, as
    around the objects of VOC, so each of them counts as of the nearest label: the boundary runs in their middle.

    Args:
        target: Labels on a grid, ``(N, H, W)`` or ``(N, D, H, W)``.
        boundary_weight: What a boundary adds to the weight.
        sigma: How far that reaches, in pixels.
        ignore_index: Pixels with this label are filled from the nearest others.

    Returns:
        float32 in the shape of ``target``; 1 everywhere in a sample without boundaries.

    Example:
        >>> boundary_weights(torch.tensor([[[0, 0, 0, 1]]]), sigma=1.0)
        tensor([[[ 2.3534,  7.0653, 11.0000, 11.0000]]])
    """
    filled = target.flatten(1).gather(1, nearest_false(target == ignore_index).flatten(1)).view_as(target)
    distance = distance_transform(~_on_boundary(filled))
    return 1 + boundary_weight * (-0.5 * (distance / sigma).square()).exp()


def boundary_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    boundary_weight: float = 10.0,
    sigma: float = 5.0,
    class_weight: Sequence[float] | Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = 255,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Cross-entropy in which pixels near a boundary between two labels count more; see :func:`boundary_weights`.

    Reference: Ronneberger et al., U-Net, MICCAI 2015, arXiv:1505.04597, with its ``w0`` and ``sigma``. There the
    distances to the two nearest cells are added, which takes instances; here it is the distance to the nearest
    boundary between labels.

    Args:
        logits: Raw scores, ``(N, C, H, W)`` or ``(N, C, D, H, W)``.
        target: Indices in ``[0, C)`` or ``ignore_index``, without ``C``.
        boundary_weight: What a boundary adds to the weight of 1.
        sigma: How far that reaches, in pixels.
        class_weight: Factor of each class.
        weight: Factor per pixel.
        ignore_index: Pixels with this target add no loss and no gradient.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``, over pixels.
        divisor: What ``"mean"`` divides by; the number of pixels that are not ignored if None.

    Returns:
        A scalar, or a loss per pixel, ``(N, *)``, for ``"none"``. At least float32.

    Raises:
        ValueError: Shapes, indices, ``class_weight`` or ``reduction`` do not fit, or the pixels lie on no grid.

    Example:
        >>> boundary_cross_entropy(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))  # 11 ln 2
        tensor(7.6246)
    """
    target = check_indices(logits, target, ignore_index)
    _check_grid(logits.shape[2:], logits)
    factor = boundary_weights(target, boundary_weight=boundary_weight, sigma=sigma, ignore_index=ignore_index)
    loss = cross_entropy(
        logits, target, class_weight=class_weight, weight=factor, ignore_index=ignore_index, reduction="none"
    )
    return weight_and_reduce(loss, weight, reduction, divisor, target != ignore_index)


class BoundaryLoss(Loss):
    """Module form of :func:`boundary_loss`.

    Args:
        mode, normalise, class_weight, ignore_index, reduction: See :func:`boundary_loss`.
        cache_size: How many images' distance maps to remember; see
            :class:`~cvplugins.losses.distance.DistanceCache`. None by default: random crops and flips make each
            label new, and the maps of an image of 512 x 512 pixels with 20 classes take 20 MiB.
    """

    target_kind = "labels"

    def __init__(
        self,
        mode: str = "multiclass",
        normalise: bool = False,
        class_weight: Sequence[float] | None = None,
        cache_size: int = 0,
        ignore_index: int = 255,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.mode = _check_mode(mode)
        self.use_sigmoid = mode != "multiclass"  # what heads of OpenMMLab ask for
        self.normalise = normalise
        self.class_weight = class_weight
        self.cache = DistanceCache(cache_size) if cache_size else None
        self.ignore_index = ignore_index
        self.reduction = check_reduction(reduction)

    def forward(self, logits: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor``, ``reduction`` and ``ignore_index``."""
        options = {"ignore_index": self.ignore_index, "reduction": self.reduction, **call}
        return boundary_loss(
            logits,
            target,
            mode=self.mode,
            normalise=self.normalise,
            class_weight=self.class_weight,
            cache=self.cache,
            **options,
        )


class HausdorffLoss(Loss):
    """Module form of :func:`hausdorff_loss`.

    Args:
        alpha, one_sided, mode, normalise, class_weight, ignore_index, reduction: See :func:`hausdorff_loss`.
    """

    target_kind = "labels"

    def __init__(
        self,
        alpha: float = 2.0,
        one_sided: bool = False,
        mode: str = "multiclass",
        normalise: bool = False,
        class_weight: Sequence[float] | None = None,
        ignore_index: int = 255,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if alpha <= 0:
            raise ValueError(f"alpha must be positive, not {alpha}; the paper uses 2")
        self.alpha = alpha
        self.one_sided = one_sided
        self.mode = _check_mode(mode)
        self.use_sigmoid = mode != "multiclass"  # what heads of OpenMMLab ask for
        self.normalise = normalise
        self.class_weight = class_weight
        self.ignore_index = ignore_index
        self.reduction = check_reduction(reduction)

    def forward(self, logits: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor``, ``reduction`` and ``ignore_index``."""
        options = {"ignore_index": self.ignore_index, "reduction": self.reduction, **call}
        return hausdorff_loss(
            logits,
            target,
            alpha=self.alpha,
            one_sided=self.one_sided,
            mode=self.mode,
            normalise=self.normalise,
            class_weight=self.class_weight,
            **options,
        )


class BoundaryCrossEntropyLoss(Loss):
    """Module form of :func:`boundary_cross_entropy`.

    Args:
        boundary_weight, sigma, class_weight, ignore_index, reduction: See :func:`boundary_cross_entropy`.
    """

    target_kind = "labels"

    def __init__(
        self,
        boundary_weight: float = 10.0,
        sigma: float = 5.0,
        class_weight: Sequence[float] | None = None,
        ignore_index: int = 255,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if sigma <= 0:
            raise ValueError(f"sigma must be positive, not {sigma}; the paper uses 5 pixels")
        self.boundary_weight = boundary_weight
        self.sigma = sigma
        self.class_weight = class_weight
        self.ignore_index = ignore_index
        self.reduction = check_reduction(reduction)

    def forward(self, logits: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor``, ``reduction`` and ``ignore_index``."""
        options = {"ignore_index": self.ignore_index, "reduction": self.reduction, **call}
        return boundary_cross_entropy(
            logits,
            target,
            boundary_weight=self.boundary_weight,
            sigma=self.sigma,
            class_weight=self.class_weight,
            **options,
        )


class _SoftmaxErrors(Function):
    """Sum over the regions of a pixel of scale times error times map.

    The error is the probability ``p``, or ``(p - inside) ** 2`` if that is given. ``logits`` ``(N, C, P)``; ``rows``,
    ``sample * C + class`` of each region, and ``scale`` ``(K,)``; ``maps`` and ``inside`` ``(K, P)``. It keeps its
    inputs, and beside them needs one softmax and a portion of the regions.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, *regions: Tensor | None) -> Tensor:
        normaliser = logits.logsumexp(1)
        ctx.save_for_backward(logits, normaliser, *regions)
        return _sum_of_errors(logits, normaliser, *regions)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, for_sum: Tensor) -> tuple[Tensor | None, ...]:
        logits, normaliser, *regions = ctx.saved_tensors
        # With g the gradient of a probability, that of its logit is p * (g - mean), with the mean over the classes.
        mean = torch.zeros_like(normaliser)
        for row, probability, factor, true in _portions(logits, normaliser, *regions):
            mean.index_add_(0, row // logits.shape[1], probability * _slope(probability, true) * factor)
        grad = logits.softmax(1).mul_(-mean.unsqueeze(1))
        for row, probability, factor, true in _portions(logits, normaliser, *regions):
            grad.flatten(0, 1).index_add_(0, row, probability * _slope(probability, true) * factor)
        return grad.mul_(for_sum.unsqueeze(1)), None, None, None, None


class _SigmoidErrors(Function):
    """The same with one sigmoid per class."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, *regions: Tensor | None) -> Tensor:
        ctx.save_for_backward(logits, *regions)
        return _sum_of_errors(logits, None, *regions)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, for_sum: Tensor) -> tuple[Tensor | None, ...]:
        logits, *regions = ctx.saved_tensors
        grad = torch.zeros_like(logits)
        for row, probability, factor, true in _portions(logits, None, *regions):
            slope = _slope(probability, true) * factor * for_sum[row // logits.shape[1]]
            grad.flatten(0, 1).index_copy_(0, row, slope * probability * (1 - probability))
        return grad, None, None, None, None


def _sum_of_errors(logits: Tensor, normaliser: Tensor | None, *regions: Any) -> Tensor:
    total = logits.new_zeros(len(logits), logits.shape[2])
    for row, probability, factor, true in _portions(logits, normaliser, *regions):
        error = probability if true is None else (probability - true).square()
        total.index_add_(0, row // logits.shape[1], error * factor)
    return total


def _slope(probability: Tensor, true: Tensor | None) -> Tensor | float:
    """Return the derivative of the error."""
    return 1.0 if true is None else 2 * (probability - true)


def _portions(
    logits: Tensor, normaliser: Tensor | None, rows: Tensor, scale: Tensor, maps: Tensor, inside: Tensor | None
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    """Yield of some regions at a time the rows, probabilities, scaled maps and masks."""
    for part in portions(len(rows), logits.shape[2], logits.device):
        row = rows[part]
        score = logits.flatten(0, 1)[row]
        probability = score.sigmoid() if normaliser is None else (score - normaliser[row // logits.shape[1]]).exp()
        true = None if inside is None else inside[part].to(score.dtype)
        yield row, probability, maps[part] * scale[part].unsqueeze(1), true


def _over_regions(
    logits: Tensor, rows: Tensor, scale: Tensor, maps: Tensor, inside: Tensor | None, mode: str
) -> Tensor:
    """Return the sum over regions of scale times error times map, ``(N, *)``."""
    errors = _SoftmaxErrors if mode == "multiclass" else _SigmoidErrors
    scores = at_least_float32(logits).flatten(2).contiguous()
    total: Tensor = errors.apply(scores, rows, scale, maps.flatten(1), None if inside is None else inside.flatten(1))  # type: ignore[no-untyped-call]
    return total.view(len(logits), *logits.shape[2:])


def _scale(logits: Tensor, rows: Tensor, class_weight: Sequence[float] | None) -> Tensor:
    """Return the factor of each region in a mean over the classes."""
    classes = logits.shape[1]
    factors = class_weights("class_weight", 1.0 if class_weight is None else class_weight, at_least_float32(logits))
    return factors.flatten().expand(classes)[rows % classes] / classes


def _on_grid(logits: Tensor, target: Tensor, mode: str, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Check shapes and indices; return logits ``(N, C, *)`` and either indices ``(N, *)`` or masks ``(N, C, *)``."""
    if _check_mode(mode) == "multiclass":
        target = check_indices(logits, target, ignore_index)
    elif logits.shape != target.shape:
        raise ValueError(f"target {tuple(target.shape)} does not fit logits {tuple(logits.shape)} in mode {mode!r}")
    elif not target.is_floating_point():
        target = target.float()  # which tells masks from indices
    _check_grid(logits.shape[1 if mode == "binary" else 2 :], logits)
    return (logits.unsqueeze(1), target.unsqueeze(1)) if mode == "binary" else (logits, target)


def _check_grid(grid: torch.Size, logits: Tensor) -> None:
    if len(grid) not in (2, 3):
        raise ValueError(
            f"logits {tuple(logits.shape)} have {len(grid)} axes of pixels; distances take a grid of 2 or 3, such as "
            "(N, C, H, W), and not sampled points"
        )


def _check_mode(mode: str) -> str:
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}; use one of {', '.join(map(repr, MODES))}")
    return mode


def _valid(target: Tensor, mode: str, ignore_index: int) -> Tensor:
    """Return which pixels count, ``(N, *)``."""
    valid = target != ignore_index
    return valid if mode == "multiclass" else valid.any(1)


def _diagonal(logits: Tensor) -> float:
    return max(1.0, math.dist(logits.shape[2:], [0.0] * (logits.ndim - 2)))


def _predicted(logits: Tensor, target: Tensor, mode: str) -> Tensor:
    """Return what is predicted with more than 0.5, in the form of ``target`` and IGNORED where that is."""
    if mode == "multiclass":
        probability, label = at_least_float32(logits).softmax(1).max(1)
        label = label.masked_fill(probability <= 0.5, NO_CLASS)
    else:
        label = (logits > 0).to(target.dtype)
    return _marked(label, target == IGNORED)


def _marked(label: Tensor, ignored: Tensor) -> Tensor:
    label = label if label.is_floating_point() else label.long()  # bytes hold no negative numbers
    return label.masked_fill(ignored, IGNORED)


def _on_boundary(target: Tensor) -> Tensor:
    """Return which pixels share a side with one of another label, boolean."""
    found = torch.zeros_like(target, dtype=torch.bool)
    for axis in range(1, target.ndim):
        edges = target.diff(dim=axis) != 0
        for side in (slice(None, -1), slice(1, None)):
            place = (*[slice(None)] * axis, side)
            found[place] |= edges
    return found
