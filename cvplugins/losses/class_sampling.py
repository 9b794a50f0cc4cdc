"""Drawing a few of very many classes, in time that does not grow with how many there are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["ByFrequency", "ClassDistribution", "ClassSample", "LogUniform", "Uniform", "class_distribution"]


class ClassSample(NamedTuple):
    """Distinct classes, and what they took.

    Attributes:
        classes: int64 ``(S,)`` on the CPU.
        draws: How many draws from the distribution it took to find as many distinct ones.
    """

    classes: Tensor
    draws: float


class ClassDistribution:
    """A distribution over the classes ``0`` to ``num_classes - 1``.

    Args:
        num_classes: How many classes there are.
    """

    def __init__(self, num_classes: int) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, not {num_classes}")
        self.num_classes = num_classes

    def probability(self, classes: Tensor) -> Tensor:
        """Return the probability of each class in ``classes``, on their device."""
        raise NotImplementedError

    def quantile(self, share: Tensor) -> Tensor:
        """Return the class at which the cumulated probability passes ``share``, in [0, 1)."""
        raise NotImplementedError

    def sample(self, num_sampled: int) -> ClassSample:
        """Draw distinct classes with torch's generator of the CPU: a seed gives the same classes on every device.

        Classes are drawn one after the other, and those that came before are dropped, as TensorFlow's candidate
        samplers do. That takes few draws as long as ``num_sampled`` is a small part of the likely classes. When it
        would take more draws than there are classes, it takes the time of one look at each class.

        Args:
            num_sampled: How many classes; all of them if there are no more.

        Example:
            >>> LogUniform(3).sample(5).classes
            tensor([0, 1, 2])
        """
        if num_sampled >= self.num_classes:
            return ClassSample(torch.arange(self.num_classes), math.inf)
        drawn = torch.empty(0, dtype=torch.int64)
        while len(drawn) <= self.num_classes:
            more = self.quantile(torch.rand(max(2 * num_sampled, len(drawn)), dtype=torch.float64))
            drawn = torch.cat([drawn, more])
            ordered, draw = drawn.sort(stable=True)
            is_first = torch.diff(ordered, prepend=ordered.new_full((1,), -1)) != 0
            first = draw[is_first].sort().values
            if len(first) >= num_sampled:
                first = first[:num_sampled]
                return ClassSample(drawn[first], int(first[-1]) + 1)
        return self._continue_by_race(num_sampled, drawn[first], len(drawn))

    def expected_count(self, classes: Tensor, draws: float) -> Tensor:
        """Return how probable it is that each class is among ``draws`` draws, ``1 - (1 - p) ** draws``.

        Example:
            >>> Uniform(4).expected_count(torch.tensor([0]), draws=2)
            tensor([0.4375])
        """
        return -torch.expm1(draws * torch.log1p(-self.probability(classes)))

    def _continue_by_race(self, num_sampled: int, seen: Tensor, draws: int) -> ClassSample:
        """Go on after so many draws as if drawing one after the other, without drawing any class twice.

        Let classes arrive as independent Poisson processes, each at the rate of its probability: they come in the
        order of single draws. First arrivals are exponential; repetitions until the last one are Poisson.
        """
        rate = self.probability(torch.arange(self.num_classes)).double()
        arrival = torch.empty_like(rate).exponential_() / rate
        arrival[seen] = 0
        first, classes = arrival.topk(num_sampled, largest=False)
        repetitions = torch.poisson((rate[classes] * (first[-1] - first)).sum())
        return ClassSample(classes, draws + num_sampled - len(seen) + float(repetitions))


class LogUniform(ClassDistribution):
    """Classes in falling order of frequency: ``p(k)`` is proportional to ``log((k + 2) / (k + 1))`` (Zipf)."""

    def probability(self, classes: Tensor) -> Tensor:
        """Return the probability of each class in ``classes``, on their device."""
        return torch.log1p(1 / (classes + 1).float()) / math.log1p(self.num_classes)

    def quantile(self, share: Tensor) -> Tensor:
        """Return the class at which the cumulated probability passes ``share``, in [0, 1)."""
        classes = torch.expm1(share * math.log1p(self.num_classes)).long()
        return classes.clamp(max=self.num_classes - 1)  # rounding may reach num_classes


class Uniform(ClassDistribution):
    """All classes alike."""

    def probability(self, classes: Tensor) -> Tensor:
        """Return the probability of each class in ``classes``, on their device."""
        return torch.full(classes.shape, 1 / self.num_classes, device=classes.device)

    def quantile(self, share: Tensor) -> Tensor:
        """Return the class at which the cumulated probability passes ``share``, in [0, 1)."""
        return (share * self.num_classes).long().clamp(max=self.num_classes - 1)


class ByFrequency(ClassDistribution):
    """Classes as often as they are counted.

    Args:
        frequencies: A positive number per class, of any sum. It is cumulated once, here.
    """

    def __init__(self, frequencies: Sequence[float] | Tensor) -> None:
        counts = torch.as_tensor(frequencies, dtype=torch.float64, device="cpu").reshape(-1)
        super().__init__(len(counts))
        wrong = (~(counts > 0) | counts.isinf()).nonzero()
        if len(wrong):
            index = int(wrong[0])
            raise ValueError(
                f"frequencies holds {counts[index]:g} for class {index}; expected positive numbers, "
                "for a class that is never drawn can not be corrected for: count it once"
            )
        self._cumulated = counts.cumsum(0) / counts.sum()
        self._probability = (counts / counts.sum()).float()

    def probability(self, classes: Tensor) -> Tensor:
        """Return the probability of each class in ``classes``, on their device."""
        if self._probability.device != classes.device:
            self._probability = self._probability.to(classes.device)  # once: it stays where it is asked for
        return self._probability[classes]

    def quantile(self, share: Tensor) -> Tensor:
        """Return the class at which the cumulated probability passes ``share``, in [0, 1)."""
        return torch.searchsorted(self._cumulated, share, right=True).clamp(max=self.num_classes - 1)


def class_distribution(sampling: str | Sequence[float] | Tensor, num_classes: int) -> ClassDistribution:
    """Return the distribution that a word or a list of frequencies stands for.

    Args:
        sampling: ``"log_uniform"``, ``"uniform"`` or a positive frequency per class.
        num_classes: How many classes there are.

    Raises:
        ValueError: An unknown word, or frequencies of another number of classes.

    Example:
        >>> class_distribution([3, 1], num_classes=2).probability(torch.tensor([0]))
        tensor([0.7500])
    """
    if not isinstance(sampling, str):
        distribution = ByFrequency(sampling)
        if distribution.num_classes != num_classes:
            raise ValueError(f"sampling holds {distribution.num_classes} frequencies; expected {num_classes}")
        return distribution
    known = {"log_uniform": LogUniform, "uniform": Uniform}
    if sampling not in known:
        raise ValueError(f"unknown sampling {sampling!r}; use 'log_uniform', 'uniform' or a frequency per class")
    return known[sampling](num_classes)
