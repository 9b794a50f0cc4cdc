"""Adaptive softmax: cross-entropy over very many classes, where rare classes have cheap clusters.

Reference: Grave et al., Efficient softmax approximation for GPUs, ICML 2017, arXiv:1609.04309.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .contract import Loss
from .reduction import at_least_float32, check_reduction, full_precision, weight_and_reduce
from .targets import check_range

__all__ = ["AdaptiveSoftmaxLoss", "adaptive_softmax_loss"]


def adaptive_softmax_loss(
    features: Tensor,
    target: Tensor,
    softmax: nn.AdaptiveLogSoftmaxWithLoss,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Minus the log-probability of the true class by torch's adaptive softmax.

    Args:
        features: Features, shape ``(N, D)``.
        target: Classes in ``[0, C)`` in falling order of frequency, or ``ignore_index``, shape ``(N,)``.
        softmax: torch's module.
        weight: Factor per row, shape ``(N,)``.
        ignore_index: Class that adds no loss and no gradient.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides by; the number of rows that are not ignored if None.

    Returns:
        A scalar, or ``(N,)`` for ``"none"``; 0 when nothing is valid. At least float32.

    Raises:
        ValueError: Shapes, classes or ``reduction`` do not fit.

    Example:
        >>> softmax = nn.AdaptiveLogSoftmaxWithLoss(16, 100, cutoffs=[10, 50])
        >>> adaptive_softmax_loss(torch.randn(2, 16), torch.tensor([3, 99]), softmax, reduction="none").shape
        torch.Size([2])
    """
    _check_features(features, softmax)
    if target.shape != features.shape[:1]:
        raise ValueError(f"target {tuple(target.shape)} does not fit features {tuple(features.shape)}: expected (N,)")
    target = check_range(target, softmax.n_classes, ignore_index)
    valid = target != ignore_index
    target = target.masked_fill(~valid, 0)  # in the head, so that ignored rows open no cluster
    dtype = torch.promote_types(at_least_float32(features).dtype, softmax.head.weight.dtype)
    # torch's module computes in the type of its parameters: they come as wide as the loss has to be.
    parameters = {name: parameter.to(dtype) for name, parameter in softmax.named_parameters()}
    with full_precision(features):
        log_probability, _ = torch.func.functional_call(softmax, parameters, (features.to(dtype), target))
    return weight_and_reduce(-log_probability, weight, reduction, divisor, valid)


class AdaptiveSoftmaxLoss(Loss):
    """A classifier of very many classes of very different frequency, and its loss.

    It takes features, not scores: it stands in place of the last linear layer, and is
    ``torch.nn.AdaptiveLogSoftmaxWithLoss`` with weights, reductions and an index to ignore. The head scores the
    frequent classes and one entry per cluster; a cluster of rare classes is only computed for the rows whose class
    lies there, in fewer dimensions. Time and memory are thus sublinear in the classes as long as the clusters'
    classes are rare; unlike sampled softmax the loss is that of an exact, normalised model, and gradients are dense.

    Parameters of a cluster that no row of the batch needs get no gradient: ``DistributedDataParallel`` has to be told
    by ``find_unused_parameters=True``, of the same name in a config of OpenMMLab.

    Args:
        in_features: Width of the features.
        num_classes: How many classes there are.
        cutoffs: Where clusters begin, in falling order of frequency: ``[2000, 10000]`` puts the 2000 most frequent
            classes into the head, the next 8000 into a first cluster and the rest into a second.
        div_value: Each cluster has so many times fewer dimensions than the one before.
        head_bias: Whether the head has a bias.
        frequencies: How often each class is seen, ``C`` numbers. Then classes may come in any order, also in
            :meth:`log_prob` and :meth:`predict`; else class 0 has to be the most frequent, and so on.
        ignore_index: Class that adds no loss.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.

    Attributes:
        softmax: torch's module.
        rank: The place of each class in falling order of frequency, saved with the parameters; None if as it is.

    Example:
        >>> loss = AdaptiveSoftmaxLoss(8, 3, cutoffs=[1], frequencies=[10, 500, 20])
        >>> loss.rank
        tensor([2, 0, 1])
        >>> loss(torch.randn(4, 8), torch.tensor([0, 1, 1, 2])).shape
        torch.Size([])
    """

    target_kind = "labels"

    rank: Tensor | None

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        frequencies: Sequence[float] | Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if in_features < div_value ** len(cutoffs):
            raise ValueError(
                f"{in_features} features leave no dimension for the last of {len(cutoffs)} clusters: "
                f"div_value {div_value} has to be smaller, or cutoffs fewer"
            )
        self.softmax = nn.AdaptiveLogSoftmaxWithLoss(in_features, num_classes, list(cutoffs), div_value, head_bias)
        self.register_buffer("rank", None if frequencies is None else _rank(frequencies, num_classes))
        self.ignore_index = ignore_index
        self.reduction = check_reduction(reduction)

    def forward(self, features: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor``, ``reduction`` and ``ignore_index``."""
        options = {"ignore_index": self.ignore_index, "reduction": self.reduction, **call}
        if self.rank is not None:
            target = check_range(target, len(self.rank), options["ignore_index"])
            valid = target != options["ignore_index"]
            target = self.rank[target.masked_fill(~valid, 0)].where(valid, target)
        return adaptive_softmax_loss(features, target, self.softmax, **options)

    def log_prob(self, features: Tensor) -> Tensor:
        """Return the log-probability of all classes, ``(N, C)``, in the type of the parameters."""
        _check_features(features, self.softmax)
        with full_precision(features):
            log_probability = self.softmax.log_prob(features.to(self.softmax.head.weight.dtype))
        return log_probability if self.rank is None else log_probability[:, self.rank]

    def predict(self, features: Tensor) -> Tensor:
        """Return the most probable class of each row, ``(N,)``; clusters are opened where they may hold it."""
        _check_features(features, self.softmax)
        with full_precision(features):
            place = self.softmax.predict(features.to(self.softmax.head.weight.dtype))
        return place if self.rank is None else self.rank.argsort()[place]


def _check_features(features: Tensor, softmax: nn.AdaptiveLogSoftmaxWithLoss) -> None:
    if features.ndim != 2 or features.shape[1] != softmax.in_features:
        raise ValueError(f"features {tuple(features.shape)} does not fit: expected (N, {softmax.in_features})")


def _rank(frequencies: Sequence[float] | Tensor, num_classes: int) -> Tensor:
    frequencies = torch.as_tensor(frequencies, dtype=torch.float64).reshape(-1)
    if len(frequencies) != num_classes:
        raise ValueError(f"frequencies holds {len(frequencies)} numbers; expected {num_classes}, one per class")
    return frequencies.argsort(descending=True, stable=True).argsort()
