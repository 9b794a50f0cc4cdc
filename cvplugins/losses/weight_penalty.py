"""Penalties on the parameters themselves: L1, L2 and their mixture, the elastic net."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from .reduction import at_least_float32

__all__ = ["WeightPenalty", "weight_penalty"]


def weight_penalty(parameters: Iterable[Tensor], *, l1: float = 0.0, l2: float = 0.0) -> Tensor:
    """Elastic net: ``l1 * sum(|w|) + l2 / 2 * sum(w ** 2)``.

    The gradient of the second term is ``l2 * w``: the same number as SGD's ``weight_decay`` does the same.
    Reference: Zou and Hastie 2005 (there without the half).

    Args:
        parameters: Tensors of any shape.
        l1: Factor of the absolute values, at least 0; it makes weights exactly small.
        l2: Factor of the squares, at least 0.

    Returns:
        A scalar; 0 without parameters. At least float32.

    Raises:
        ValueError: A negative factor.

    Example:
        >>> weight_penalty([torch.tensor([3.0, -4.0])], l1=1.0, l2=2.0)
        tensor(32.)
    """
    if l1 < 0 or l2 < 0:
        raise ValueError(f"l1 and l2 must be at least 0, not {l1} and {l2}")
    terms = []
    for parameter in parameters:
        values = at_least_float32(parameter)
        if l1:
            terms.append(l1 * values.abs().sum())
        if l2:
            terms.append(l2 / 2 * values.square().sum())
    return torch.stack(terms).sum() if terms else torch.zeros(())


class WeightPenalty(nn.Module):
    """The penalty of chosen parameters of a model; see :func:`weight_penalty`.

    Args:
        l1: Factor of the absolute values.
        l2: Factor of the squares.
        include: Patterns (as of file names) of the names of parameters that are penalised.
        exclude: Patterns of those that are not.
        min_dims: Parameters with fewer dimensions are left out; 2 leaves out biases and normalisation.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> [name for name, _ in WeightPenalty(l2=1e-4).chosen(model)]
        ['weight']
    """

    def __init__(
        self,
        l1: float = 0.0,
        l2: float = 0.0,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        min_dims: int = 2,
    ) -> None:
        super().__init__()
        if l1 < 0 or l2 < 0:
            raise ValueError(f"l1 and l2 must be at least 0, not {l1} and {l2}")
        self.l1 = l1
        self.l2 = l2
        self.include = [include] if isinstance(include, str) else list(include)
        self.exclude = [exclude] if isinstance(exclude, str) else list(exclude)
        self.min_dims = min_dims

    def chosen(self, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Yield the names and parameters that are penalised: those that match and are trained."""
        for name, parameter in model.named_parameters():
            wanted = _matches(name, self.include) and not _matches(name, self.exclude)
            if wanted and parameter.requires_grad and parameter.ndim >= self.min_dims:
                yield name, parameter

    def forward(self, model: nn.Module) -> Tensor:
        """Compute the penalty of the chosen parameters of ``model``.

        Raises:
            ValueError: No parameter is chosen, which is a mistake in the patterns or a frozen model.
        """
        parameters = [parameter for _, parameter in self.chosen(model)]
        if not parameters:
            names = [name for name, _ in model.named_parameters()][:5]
            raise ValueError(
                f"no trained parameter with {self.min_dims} or more dimensions matches include={self.include} and "
                f"exclude={self.exclude}; the first parameters are {', '.join(names) or 'none'}"
            )
        return weight_penalty(parameters, l1=self.l1, l2=self.l2)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
