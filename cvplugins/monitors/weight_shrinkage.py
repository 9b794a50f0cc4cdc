"""L1, L2 and elastic net applied at the optimizer's step instead of in the loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cvplugins.losses.weight_penalty import WeightPenalty, weight_penalty

__all__ = ["SparsityReport", "WeightShrinkage"]

# nn.modules.batchnorm._NormBase is the parent of batch and instance norms, also of mmcv's and ours.
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)


@dataclass(frozen=True)
class SparsityReport:
    """What the penalty has come to.

    Attributes:
        penalty: ``l1 * sum(|w|) + l2 / 2 * sum(w ** 2)``.
        sparsity: Share of the weights that are exactly 0.
        layers: The same for each parameter.
    """

    penalty: float
    sparsity: float
    layers: dict[str, float]


class WeightShrinkage:
    """Shrink chosen parameters of a model at each step of the optimizer, in one of two ways.

    - :meth:`add_gradient`, before the step: ``l1 * sign(w) + l2 * w`` joins the gradient, as torch's
      ``weight_decay`` does (the same numbers as ``SGD(weight_decay=l2)``), after any clipping. Adaptive optimizers
      divide it by their second moment. Weights come close to 0 and jump around it.
    - :meth:`shrink`, after the step: the proximal operator of ``lr`` times the penalty, ``w = soft(w, lr * l1) /
      (1 + lr * l2)``, which sets weights to exactly 0. It is not scaled by adaptive optimizers, as in AdamW.

    A parameter that got no gradient is left alone, as by torch's optimizers. Reference for the second: Parikh and
    Boyd, Proximal Algorithms, 2014, section 6.5.

    Args:
        model: The model; may be wrapped in DistributedDataParallel. Only parameters that are trained when a step
            comes are shrunk.
        l1: Factor of the absolute values.
        l2: Factor of the squares' halves.
        include: Patterns (as of file names) of the names of parameters.
        exclude: Patterns of those that are left out.
        min_dims: Parameters with fewer dimensions are left out; 2 leaves out biases.
        norms: Whether normalisation layers are shrunk too.

    Raises:
        ValueError: A factor is negative or both are 0, or no parameter is chosen.

    Example:
        >>> model = nn.Linear(3, 1)
        >>> model.weight.data = torch.tensor([[0.5, 0.05, -2.0]])
        >>> model.weight.grad = torch.zeros(1, 3)
        >>> shrinkage = WeightShrinkage(model, l1=1.0)
        >>> shrinkage.shrink(torch.optim.SGD(model.parameters(), lr=0.1))
        >>> model.weight.data
        tensor([[ 0.4000,  0.0000, -1.9000]])
    """

    def __init__(
        self,
        model: nn.Module,
        l1: float = 0.0,
        l2: float = 0.0,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        min_dims: int = 2,
        norms: bool = False,
    ) -> None:
        if not (l1 > 0 or l2 > 0):
            raise ValueError(f"l1 is {l1} and l2 is {l2}; at least one has to be above 0")
        self.l1 = l1
        self.l2 = l2
        penalty = WeightPenalty(l1, l2, include, exclude, min_dims)
        model = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        penalty(model)  # raises if nothing is chosen
        left_out = set()
        if not norms:
            layers = [layer for layer in model.modules() if isinstance(layer, NORMS)]
            left_out = {id(parameter) for layer in layers for parameter in layer.parameters(recurse=False)}
        self.parameters = {name: value for name, value in penalty.chosen(model) if id(value) not in left_out}
        if not self.parameters:
            raise ValueError("all parameters that match belong to normalisation layers; set norms=True to shrink them")
        self._chosen = {id(parameter) for parameter in self.parameters.values()}

    @torch.no_grad()
    def add_gradient(self, optimizer: Optimizer, scale: Tensor | float = 1.0) -> None:
        """Add the penalty's gradient to that of the optimizer's parameters; call it just before the step.

        Args:
            optimizer: Whose parameters.
            scale: Loss scale that the gradients are still multiplied by.
        """
        for group in optimizer.param_groups:
            weights = self._due(group["params"])
            gradients = [weight.grad for weight in weights if weight.grad is not None]
            if self.l2 and weights:
                torch._foreach_add_(gradients, _scaled(weights, scale), alpha=self.l2)
            if self.l1 and weights:
                torch._foreach_add_(gradients, _scaled([weight.sign() for weight in weights], scale), alpha=self.l1)

    @torch.no_grad()
    def shrink(self, optimizer: Optimizer) -> None:
        """Take the proximal step with each group's learning rate; call it just after the optimizer's."""
        for group in optimizer.param_groups:
            weights = self._due(group["params"])
            if not weights:
                continue
            if self.l1:
                threshold = group["lr"] * self.l1
                clipped = torch._foreach_clamp_max(weights, threshold)
                torch._foreach_clamp_min_(clipped, -threshold)
                torch._foreach_sub_(weights, clipped)  # exactly 0 within the threshold; NaN stays NaN
            if self.l2:
                torch._foreach_div_(weights, 1 + group["lr"] * self.l2)

    @torch.no_grad()
    def report(self) -> SparsityReport:
        """Count zeros; one device synchronisation."""
        values = list(self.parameters.values())
        zeros = torch.stack([value.numel() - value.count_nonzero() for value in values]).double()
        penalty = weight_penalty(values, l1=self.l1, l2=self.l2).double().reshape(1)
        *counts, total = torch.cat([zeros, penalty]).tolist()
        sizes = [value.numel() for value in values]
        layers = {name: count / size for name, count, size in zip(self.parameters, counts, sizes, strict=True)}
        return SparsityReport(total, sum(counts) / sum(sizes), layers)

    def _due(self, parameters: Iterable[Tensor]) -> list[Tensor]:
        return [
            parameter
            for parameter in parameters
            if id(parameter) in self._chosen and parameter.requires_grad and parameter.grad is not None
        ]


def _scaled(values: list[Tensor], scale: Tensor | float) -> list[Tensor]:
    """Return values times the scale, without a copy where there is none."""
    return [value * scale for value in values] if isinstance(scale, Tensor) or scale != 1 else values
