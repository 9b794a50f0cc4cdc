"""Sampled softmax: cross-entropy over very many classes from a few of them.

Reference: Jean et al., On Using Very Large Target Vocabulary for Neural Machine Translation, ACL 2015,
arXiv:1412.2007; TensorFlow's ``sampled_softmax_loss``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .class_sampling import ClassDistribution, class_distribution
from .contract import Loss
from .cross_entropy import cross_entropy
from .reduction import at_least_float32, check_reduction, full_precision, weight_and_reduce
from .targets import check_range

__all__ = ["SampledSoftmaxLoss", "sampled_softmax_loss"]

VALUES_AT_ONCE = 1 << 24  # logits that predict() holds at once


def sampled_softmax_loss(
    features: Tensor,
    target: Tensor,
    class_embedding: Tensor,
    bias: Tensor | None = None,
    *,
    num_sampled: int,
    distribution: ClassDistribution,
    sparse: bool = False,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Cross-entropy of the true class against ``num_sampled`` classes that the whole batch shares.

    Classes are drawn without replacement; a sampled class that is the true one of a row does not count there. From
    each logit the log of the expected count of its class is subtracted, so that training tends to the scores that
    full cross-entropy would find. Time and memory are ``O((N + S) D + N S)`` for ``S`` samples of width ``D``.
    If ``sparse``, nothing that is computed is as long as the number of classes ``C``, unless the sample takes more
    draws than that.

    Args:
        features: Features, shape ``(N, D)``.
        target: Classes in ``[0, C)`` or ``ignore_index``, shape ``(N,)``.
        class_embedding: A row per class, shape ``(C, D)``.
        bias: A number per class, shape ``(C,)``.
        num_sampled: How many classes are drawn; with all of them it is the full cross-entropy.
        distribution: What they are drawn from: :class:`LogUniform`, :class:`Uniform` or :class:`ByFrequency`.
        sparse: Give ``class_embedding`` and ``bias`` a sparse gradient, of the ``N + S`` rows that were looked at;
            else a dense one, zero elsewhere.
        weight: Factor per row, shape ``(N,)``.
        ignore_index: Class that adds no loss and no gradient.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides by; the number of rows that are not ignored if None.

    Returns:
        A scalar, or ``(N,)`` for ``"none"``; 0 when nothing is valid. At least float32.

    Raises:
        ValueError: Shapes, classes or ``reduction`` do not fit.

    Example:
        >>> from cvplugins.losses.class_sampling import Uniform
        >>> features, target, embedding = torch.zeros(1, 2), torch.tensor([3]), torch.zeros(10, 2)
        >>> sampled_softmax_loss(features, target, embedding, num_sampled=10, distribution=Uniform(10))  # ln 10
        tensor(2.3026)
    """
    _check_shapes(features, target, class_embedding, bias, distribution.num_classes)
    target = check_range(target, len(class_embedding), ignore_index)
    valid = target != ignore_index
    target = target.masked_fill(~valid, 0)
    sample = distribution.sample(num_sampled)
    sampled = sample.classes.to(features.device, non_blocking=True)
    classes = torch.cat([target, sampled])
    features, rows = _same_precision(features, F.embedding(classes, class_embedding, sparse=sparse))
    offset = -distribution.expected_count(classes, sample.draws).log()
    if bias is not None:
        offset = offset + torch.gather(bias, 0, classes, sparse_grad=sparse)
    count = len(target)
    with full_precision(features):
        true = (features * rows[:count]).sum(1) + offset[:count]
        others = features @ rows[count:].T + offset[count:]
    others = others.masked_fill(target.unsqueeze(1) == sampled, -math.inf)
    loss = -F.log_softmax(torch.cat([true.unsqueeze(1), others], dim=1), dim=1)[:, 0]
    return weight_and_reduce(loss, weight, reduction, divisor, valid)


class SampledSoftmaxLoss(Loss):
    """A linear classifier of very many classes and its loss, which in training looks at a few classes only.

    It takes features, not scores: it stands in place of the last linear layer. In training it is
    :func:`sampled_softmax_loss`; in eval mode the full cross-entropy, for which :meth:`log_prob` and :meth:`predict`
    give the scores and the class.

    With ``sparse`` the time and memory of a step do not grow with the number of classes, provided that the optimizer
    takes sparse gradients and looks at their rows only: ``torch.optim.SparseAdam``, or ``SGD`` without momentum
    and weight decay. ``Adagrad`` takes them too. Adam, AdamW, weight decay, clipping the norm of gradients and
    ``DistributedDataParallel``, on any backend, do not: use ``sparse=False``, whose gradient is as large as the
    classifier. Numbers are in ``benchmarks/many_classes.py``.

    Args:
        in_features: Width of the features.
        num_classes: How many classes there are.
        num_sampled: How many are drawn for a batch; with at least ``num_classes`` the loss is the full one.
        sampling: ``"log_uniform"`` for classes in falling order of frequency, ``"uniform"``, or a positive frequency
            per class. Best are the frequencies of the training data.
        bias: Whether classes have a bias.
        sparse: Whether gradients of the classifier are sparse.
        ignore_index: Class that adds no loss.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.

    Attributes:
        weight: The classifier, ``(C, D)``, named and initialised as that of ``torch.nn.Linear``.
        bias: ``(C,)`` or None.

    Example:
        >>> loss = SampledSoftmaxLoss(in_features=8, num_classes=50_000, num_sampled=20)
        >>> loss(torch.randn(4, 8), torch.tensor([0, 7, 49_999, 7])).backward()
        >>> loss.weight.grad._nnz()
        24
    """

    target_kind = "labels"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        num_sampled: int = 1024,
        sampling: str | Sequence[float] | Tensor = "log_uniform",
        bias: bool = True,
        sparse: bool = True,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if num_sampled < 1:
            raise ValueError(f"num_sampled must be at least 1, not {num_sampled}")
        self.distribution = class_distribution(sampling, num_classes)
        self.num_sampled = num_sampled
        self.sparse = sparse
        self.ignore_index = ignore_index
        self.reduction = check_reduction(reduction)
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(num_classes, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_classes).uniform_(-bound, bound)) if bias else None

    def forward(self, features: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor``, ``reduction`` and ``ignore_index``."""
        options = {"ignore_index": self.ignore_index, "reduction": self.reduction, **call}
        if self.training:
            return sampled_softmax_loss(
                features,
                target,
                self.weight,
                self.bias,
                num_sampled=self.num_sampled,
                distribution=self.distribution,
                sparse=self.sparse,
                **options,
            )
        _check_shapes(features, target, self.weight, self.bias, self.distribution.num_classes)
        return cross_entropy(self.scores(features), target, **options)

    def scores(self, features: Tensor) -> Tensor:
        """Return the logits of all classes, ``(N, C)``, at least float32."""
        features, weight = _same_precision(features, self.weight)
        with full_precision(features):
            return F.linear(features, weight, None if self.bias is None else self.bias.to(weight.dtype))

    def log_prob(self, features: Tensor) -> Tensor:
        """Return the log-probability of all classes, ``(N, C)``, at least float32."""
        return self.scores(features).log_softmax(1)

    @torch.no_grad()
    def predict(self, features: Tensor) -> Tensor:
        """Return the most probable class of each row, ``(N,)``, a few rows at a time."""
        rows = max(1, VALUES_AT_ONCE // len(self.weight))
        return torch.cat([self.scores(some).argmax(1) for some in torch.split(features, rows)])


def _same_precision(features: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in the wider of their types, at least float32."""
    dtype = torch.promote_types(at_least_float32(features).dtype, rows.dtype)
    return features.to(dtype), rows.to(dtype)


def _check_shapes(
    features: Tensor, target: Tensor, class_embedding: Tensor, bias: Tensor | None, num_classes: int
) -> None:
    if features.ndim != 2 or features.shape[1:] != class_embedding.shape[1:]:
        raise ValueError(
            f"features {tuple(features.shape)} does not fit the classes' {tuple(class_embedding.shape)}: "
            "expected (N, D) and (C, D)"
        )
    if target.shape != features.shape[:1]:
        raise ValueError(f"target {tuple(target.shape)} does not fit features {tuple(features.shape)}: expected (N,)")
    if len(class_embedding) != num_classes or (bias is not None and bias.shape != (num_classes,)):
        raise ValueError(f"class_embedding or bias does not fit the distribution's {num_classes} classes")
