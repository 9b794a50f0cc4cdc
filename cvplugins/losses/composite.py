"""Several losses as one: a weighted sum whose weights are constant, follow the iteration, or are learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from .contract import Loss, uses_sigmoid

__all__ = ["CompositeLoss", "Weight", "scheduled_weight", "uncertainty_weighted"]

# A number, "learned", or points (iteration, number) of a schedule.
Weight: TypeAlias = "float | str | Sequence[tuple[int, float]]"


def scheduled_weight(points: Sequence[tuple[int, float]], iteration: int) -> float:
    """Return the weight at an iteration: straight lines between the points, constant before and after them.

    Args:
        points: Pairs of iteration and weight, the iterations ascending.
        iteration: Counted from 0.

    Example:
        >>> scheduled_weight([(0, 0.0), (1000, 1.0)], 250)
        0.25
    """
    start, before = points[0]
    for end, after in points[1:]:
        if iteration < end:
            return before + (after - before) * max(0.0, (iteration - start) / (end - start))
        start, before = end, after
    return before


def uncertainty_weighted(loss: Tensor, log_variance: Tensor) -> Tensor:
    """Weight a loss by the uncertainty of its task, which is learned: ``loss / variance + log_variance / 2``.

    Reference: Kendall et al., Multi-Task Learning Using Uncertainty, CVPR 2018, arXiv:1705.07115, equation 10 for
    classification. A loss that is exactly 0 has nothing to tell (no sample of its kind in the batch), so the second
    term is left out there.

    Args:
        loss: Any shape.
        log_variance: A scalar parameter; 0 is a weight of 1.

    Example:
        >>> uncertainty_weighted(torch.tensor(3.0), torch.tensor(0.0))
        tensor(3.)
    """
    return loss * torch.exp(-log_variance) + log_variance / 2 * (loss.detach() != 0)


class CompositeLoss(Loss):
    """Weighted sum of losses of the same input and target.

    Args:
        losses: The parts under their names.
        weights: The factor of each part, 1 for those that are not named: a number; points ``(iteration, weight)``,
            see :func:`scheduled_weight`; or ``"learned"``, see :func:`uncertainty_weighted`. One word
            ``"learned"`` holds for all parts.

    Attributes:
        iteration: Where the schedules stand; set it before each training step. The adapters do so.

    Raises:
        TypeError: Weights of another kind.
        ValueError: No loss, a weight for an unknown part, or a schedule that does not ascend.

    Example:
        >>> from cvplugins.losses import CrossEntropyLoss, DiceLoss
        >>> loss = CompositeLoss({"ce": CrossEntropyLoss(), "dice": DiceLoss()}, {"dice": [(0, 0.0), (1000, 3.0)]})
        >>> loss.iteration = 500
        >>> sorted(loss.parts(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]])))
        ['ce', 'dice']
        >>> loss.weight("dice")
        1.5
    """

    target_kind = "parts"

    def __init__(self, losses: Mapping[str, nn.Module], weights: Mapping[str, Weight] | str | None = None) -> None:
        super().__init__()
        if not losses:
            raise ValueError("CompositeLoss needs at least one loss in losses")
        if isinstance(weights, str):
            weights = dict.fromkeys(losses, weights)
        if weights is not None and not isinstance(weights, Mapping):
            raise TypeError(f"weights is {weights!r}; expected the weight of each part under its name, or 'learned'")
        unknown = sorted(set(weights or ()) - set(losses))
        if unknown:
            raise ValueError(f"weights name {', '.join(unknown)}; the losses are {', '.join(losses)}")
        self.losses = nn.ModuleDict(losses)
        self.weights = {name: _checked(name, (weights or {}).get(name, 1.0)) for name in losses}
        learned = [name for name, weight in self.weights.items() if weight == "learned"]
        self.log_variance = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in learned})
        self.iteration = 0

    @property
    def iteration(self) -> int:
        """Where the schedules stand."""
        return self._iteration

    @iteration.setter
    def iteration(self, iteration: int) -> None:
        self._iteration = iteration
        # As tensors they are no constants, for each of which torch.compile would compile anew.
        self._scheduled = {
            name: torch.tensor(scheduled_weight(weight, iteration))
            for name, weight in self.weights.items()
            if not isinstance(weight, (float, str))
        }

    @property
    def use_sigmoid(self) -> bool:  # type: ignore[override]
        """Whether the scores are one sigmoid per class; the parts have to agree.

        Raises:
            ValueError: Some parts read the scores as a softmax, others as sigmoids.
        """
        found = {name: uses_sigmoid(part) for name, part in self.losses.items()}
        if len(set(found.values())) > 1:
            raise ValueError(f"parts read the same scores in different ways; use_sigmoid is {found}")
        return next(iter(found.values()))

    def weight(self, name: str) -> float:
        """Return the present weight of a part; of a learned one ``1 / variance``."""
        weight = self.weights[name]
        if weight == "learned":
            return float(torch.exp(-self.log_variance[name].detach()))
        return weight if isinstance(weight, float) else float(self._scheduled[name])

    def part(self, name: str, predicted: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Return one part, weighted."""
        loss: Tensor = self.losses[name](predicted, target, **call)
        if self.weights[name] == "learned":
            return uncertainty_weighted(loss, self.log_variance[name])
        return loss * (self._scheduled[name] if name in self._scheduled else self.weight(name))

    def parts(self, predicted: Tensor, target: Tensor, **call: Any) -> dict[str, Tensor]:
        """Return the weighted parts, whose sum is the loss."""
        return {name: self.part(name, predicted, target, **call) for name in self.losses}

    def forward(self, predicted: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` goes to every part."""
        return total(self.parts(predicted, target, **call))


def total(parts: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of parts; without reduction they have to be alike in shape.

    >>> total({"a": torch.tensor(1.0), "b": torch.tensor(2.0)})
    tensor(3.)
    """
    shapes = {name: tuple(part.shape) for name, part in parts.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"parts of shapes {shapes} have no sum without reduction; use 'mean' or 'sum'")
    return torch.stack(list(parts.values())).sum(0)


def _checked(name: str, weight: Weight) -> Weight:
    if weight == "learned":
        return weight
    if isinstance(weight, (int, float)):
        return float(weight)
    if isinstance(weight, str):
        raise ValueError(f"unknown weight {weight!r} of {name}; use a number, 'learned', or points (iteration, weight)")
    try:
        points = [(int(iteration), float(value)) for iteration, value in weight]
    except TypeError as error:
        message = f"weight {weight!r} of {name}; use a number, 'learned', or a list of points (iteration, weight)"
        raise TypeError(message) from error
    iterations = [iteration for iteration, _ in points]
    if not points or iterations != sorted(set(iterations)):
        raise ValueError(f"the schedule of {name} has iterations {iterations}; expected ascending ones")
    return points
