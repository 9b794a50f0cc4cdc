"""Adversarial losses and the penalties that keep a discriminator's gradient in bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .contract import Loss
from .reduction import at_least_float32, check_reduction, constant, full_precision, weight_and_reduce

__all__ = ["GANLoss", "discriminator_loss", "generator_loss", "gradient_penalty", "r1_penalty"]

# The loss of scores whose target is 1 for real and 0 for fake.
_FOR_DISCRIMINATOR: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "vanilla": lambda scores, target: F.binary_cross_entropy_with_logits(scores, target, reduction="none"),
    "lsgan": lambda scores, target: (scores - target).square(),
    "hinge": lambda scores, target: F.relu(1 - (2 * target - 1) * scores),
    "wgan": lambda scores, target: (1 - 2 * target) * scores,
}
# The loss of the scores of fakes that ought to pass for real.
_FOR_GENERATOR: dict[str, Callable[[Tensor], Tensor]] = {
    "vanilla": lambda scores: -F.logsigmoid(scores),
    "lsgan": lambda scores: (scores - 1).square(),
    "hinge": torch.neg,
    "wgan": torch.neg,
}


def discriminator_loss(
    scores: Tensor,
    target: Tensor | bool,
    *,
    kind: str = "vanilla",
    real_label: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """What a discriminator is to minimise on real or on fake samples; its loss is the sum of both.

    With ``t`` 1 for real and 0 for fake, and ``s`` for the scores:

    - ``"vanilla"``: ``bce(sigmoid(s), t)``, Goodfellow et al. 2014, arXiv:1406.2661.
    - ``"lsgan"``: ``(s - t) ** 2``, Mao et al. 2017, arXiv:1611.04076; without its factor of a half, as in BasicSR.
    - ``"hinge"``: ``max(0, 1 - s)`` for real, ``max(0, 1 + s)`` for fake, Lim and Ye 2017, arXiv:1705.02894.
    - ``"wgan"``: ``-s`` for real, ``s`` for fake, Arjovsky et al. 2017, arXiv:1701.07875; it needs
      :func:`gradient_penalty`.

    Args:
        scores: Raw scores, ``(N, *)``: one a sample, or one a patch.
        target: True for real, False for fake; or 1 and 0 for each sample ``(N,)`` or for each score ``(N, *)``.
        kind: ``"vanilla"``, ``"lsgan"``, ``"hinge"`` or ``"wgan"``.
        real_label: What real counts as, for vanilla and lsgan; 0.9 is one-sided label smoothing.
        weight: Factor per sample ``(N,)`` or per score ``(N, *)``.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides by; the number of scores if None.

    Returns:
        A scalar, or ``(N, *)`` for ``"none"``; 0 for no scores. At least float32.

    Raises:
        ValueError: Shapes or options do not fit.

    Example:
        >>> discriminator_loss(torch.tensor([0.5, -2.0]), False, kind="hinge", reduction="none")
        tensor([1.5000, 0.0000])
    """
    _check_kind(kind, real_label)
    scores = at_least_float32(scores)
    is_real = constant(target, scores)
    label = real_label * (_per_score("target", is_real, scores) if isinstance(target, Tensor) else is_real)
    loss = _FOR_DISCRIMINATOR[kind](scores, label.expand_as(scores))
    return _reduced(loss, weight, reduction, divisor)


def generator_loss(
    scores: Tensor,
    *,
    kind: str = "vanilla",
    weight: Tensor | None = None,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """What a generator is to minimise: ``-log(sigmoid(s))``, ``(s - 1) ** 2``, or ``-s`` for hinge and wgan.

    For vanilla this is the non-saturating form. Labels are not smoothed here.

    Args:
        scores: The discriminator's raw scores of generated samples, ``(N, *)``.
        kind: ``"vanilla"``, ``"lsgan"``, ``"hinge"`` or ``"wgan"``; see :func:`discriminator_loss`.
        weight: Factor per sample ``(N,)`` or per score ``(N, *)``.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides by; the number of scores if None.

    Returns:
        A scalar, or ``(N, *)`` for ``"none"``; 0 for no scores. At least float32.

    Raises:
        ValueError: Shapes or options do not fit.

    Example:
        >>> generator_loss(torch.tensor([0.5, -2.0]), kind="hinge", reduction="none")
        tensor([-0.5000,  2.0000])
    """
    _check_kind(kind)
    scores = at_least_float32(scores)
    return _reduced(_FOR_GENERATOR[kind](scores), weight, reduction, divisor)


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    *,
    target_norm: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """``(norm - target_norm) ** 2`` of the score's gradient at a random point between each real and fake sample.

    Reference: Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017, arXiv:1704.00028, where its
    factor is 10. The norm is over all values of a sample, and the scores of its patches are summed. A batch norm in
    the discriminator would mix the samples. Autocast is off inside: gradients of gradients would vanish in float16.

    Args:
        discriminator: Gives scores ``(N, *)`` of samples ``(N, *)``.
        real: Real samples, ``(N, *)``.
        fake: Generated samples in the same shape; neither gets a gradient.
        target_norm: The norm that costs nothing; 0 asks for a flat discriminator.
        weight: Factor per sample, ``(N,)``.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides by; the number of samples if None.

    Returns:
        A scalar, or ``(N,)`` for ``"none"``; its gradient reaches the discriminator's parameters.

    Raises:
        ValueError: Shapes or ``reduction`` do not fit.

    Example:
        >>> steep = lambda samples: 3 * samples.sum(1)  # its gradient is (3, 3, 3, 3), of norm 6
        >>> gradient_penalty(steep, torch.rand(2, 4), torch.rand(2, 4))
        tensor(25.)
    """
    if real.shape != fake.shape or real.ndim < 2:
        raise ValueError(f"fake {tuple(fake.shape)} does not fit real {tuple(real.shape)}; expected (N, *) for both")
    real, fake = at_least_float32(real.detach()), at_least_float32(fake.detach())
    share = torch.rand(len(real), *[1] * (real.ndim - 1), dtype=real.dtype, device=real.device)
    gradient = _gradient_at(torch.lerp(real, fake, share), discriminator)
    loss = (torch.linalg.vector_norm(gradient, dim=1) - target_norm).square()
    return weight_and_reduce(loss, weight, reduction, divisor)


def r1_penalty(
    discriminator: Callable[[Tensor], Tensor],
    real: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
) -> Tensor:
    """Squared norm of the score's gradient at each real sample.

    Reference: Mescheder et al., Which Training Methods for GANs do actually Converge?, ICML 2018, arXiv:1801.04406.
    The paper's factor ``gamma / 2`` is left to the caller, as in BasicSR. Autocast is off inside.

    Args:
        discriminator: Gives scores ``(N, *)`` of samples ``(N, *)``; those of patches are summed.
        real: Real samples, ``(N, *)``; they get no gradient.
        weight: Factor per sample, ``(N,)``.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides by; the number of samples if None.

    Returns:
        A scalar, or ``(N,)`` for ``"none"``; its gradient reaches the discriminator's parameters.

    Raises:
        ValueError: Shapes or ``reduction`` do not fit.

    Example:
        >>> steep = lambda samples: 3 * samples.sum(1)  # its gradient is (3, 3, 3, 3), of norm 6
        >>> r1_penalty(steep, torch.rand(2, 4))
        tensor(36.)
    """
    if real.ndim < 2:
        raise ValueError(f"real {tuple(real.shape)} does not fit; expected samples (N, *)")
    gradient = _gradient_at(at_least_float32(real.detach()), discriminator)
    return weight_and_reduce(gradient.square().sum(1), weight, reduction, divisor)


class GANLoss(Loss):
    """Module form of :func:`discriminator_loss` and :func:`generator_loss`, with both penalties.

    Args:
        kind: ``"vanilla"``, ``"lsgan"``, ``"hinge"`` or ``"wgan"``.
        real_label: What real counts as for the discriminator, for vanilla and lsgan.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.

    Example:
        >>> loss = GANLoss("hinge")
        >>> real, fake = torch.tensor([[2.0]]), torch.tensor([[-0.5]])  # scores
        >>> loss(real, True) + loss(fake, False)  # for the discriminator
        tensor(0.5000)
        >>> loss(fake, True, for_generator=True)
        tensor(0.5000)
    """

    def __init__(self, kind: str = "vanilla", real_label: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        _check_kind(kind, real_label)
        self.kind = kind
        self.real_label = real_label
        self.reduction = check_reduction(reduction)

    def forward(self, scores: Tensor, target: Tensor | bool, for_generator: bool = False, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor`` and ``reduction``.

        Args:
            scores: Raw scores, ``(N, *)``.
            target: See :func:`discriminator_loss`; True for a generator, which wants its samples taken for real.
            for_generator: Whether the loss is the generator's.
            call: Options of this call.
        """
        options = {"kind": self.kind, "reduction": self.reduction, **call}
        if not for_generator:
            return discriminator_loss(scores, target, real_label=self.real_label, **options)
        if target is not True:
            raise ValueError(f"target {target!r} does not fit a generator, which wants its samples real: use True")
        return generator_loss(scores, **options)

    def gradient_penalty(
        self, discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, **call: Any
    ) -> Tensor:
        """Compute :func:`gradient_penalty` with the stored reduction."""
        return gradient_penalty(discriminator, real, fake, **{"reduction": self.reduction, **call})

    def r1_penalty(self, discriminator: Callable[[Tensor], Tensor], real: Tensor, **call: Any) -> Tensor:
        """Compute :func:`r1_penalty` with the stored reduction."""
        return r1_penalty(discriminator, real, **{"reduction": self.reduction, **call})


def _check_kind(kind: str, real_label: float = 1.0) -> None:
    if kind not in _FOR_DISCRIMINATOR:
        raise ValueError(f"unknown kind {kind!r}; use one of {', '.join(map(repr, _FOR_DISCRIMINATOR))}")
    if real_label != 1 and kind in ("hinge", "wgan"):
        raise ValueError(f"real_label {real_label} does not fit kind {kind!r}, which has no labels; leave it at 1")


def _per_score(name: str, values: Tensor, scores: Tensor) -> Tensor:
    """Return values per sample or per score in the shape of the scores."""
    if values.shape == scores.shape:
        return values
    if values.shape != scores.shape[:1]:
        raise ValueError(f"{name} {tuple(values.shape)} does not fit scores {tuple(scores.shape)}")
    return values.view(-1, *[1] * (scores.ndim - 1)).expand_as(scores)


def _reduced(loss: Tensor, weight: Tensor | None, reduction: str, divisor: float | Tensor | None) -> Tensor:
    if weight is not None and weight.ndim > 0:
        weight = _per_score("weight", weight, loss)
    return weight_and_reduce(loss, weight, reduction, divisor)


def _gradient_at(samples: Tensor, discriminator: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the gradient of each sample's score as ``(N, D)``, itself differentiable."""
    samples.requires_grad_()
    with full_precision(samples):
        scores = discriminator(samples)
        (gradient,) = torch.autograd.grad(scores.sum(), samples, create_graph=True)
    return at_least_float32(gradient).flatten(1)
