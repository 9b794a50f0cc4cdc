"""Is a short, noisy series falling? Rank statistics: no assumption about the noise, no outlier counts much."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from functools import lru_cache

__all__ = ["falls", "mann_kendall", "noise"]


def mann_kendall(values: Sequence[float]) -> float:
    """Return how probable a fall as clear as this one is if the order of the values were chance.

    The exact one-sided Mann-Kendall test: pairs that fall, against the number that permutations have. Ties count
    as pairs that do not fall. References: Mann, Econometrica 13, 1945; Kendall, Rank Correlation Methods, 1948.

    Example:
        >>> mann_kendall([4.0, 3.0, 2.0, 1.0])  # 1 of 24 orders
        0.041666666666666664
        >>> mann_kendall([1.0, 2.0, 3.0, 4.0])
        1.0
    """
    falling = sum(earlier > later for earlier, later in itertools.combinations(values, 2))
    numbers = _inversions(len(values))
    return sum(numbers[falling:]) / sum(numbers)


@lru_cache
def _inversions(count: int) -> tuple[int, ...]:
    """Return how many permutations of ``count`` items have 0, 1, 2 ... inversions."""
    numbers = [1]
    for items in range(2, count + 1):
        # The new item may form 0 to items - 1 inversions.
        longer = [0] * (len(numbers) + items - 1)
        for inversions, number in enumerate(numbers):
            for more in range(items):
                longer[inversions + more] += number
        numbers = longer
    return tuple(numbers)


def falls(values: Sequence[float], significance: float = 0.01, min_change: float = 0.0) -> bool:
    """Return whether a series falls: clearly by its order, and by enough.

    Args:
        values: The series.
        significance: Largest probability of :func:`mann_kendall`.
        min_change: Least fall from the first half's median to the second's, as a share of the first's.

    Example:
        >>> falls([9.0, 8.0, 8.5, 7.0, 6.0, 5.5, 5.0])
        True
    """
    if len(values) < 2 or mann_kendall(values) > significance:
        return False
    half = len(values) // 2
    before, after = statistics.median(values[:half]), statistics.median(values[-half:])
    return before - after > min_change * abs(before)


def noise(values: Sequence[float]) -> float:
    """Return the standard deviation of the noise of a series around whatever smooth course it takes.

    From the median of the absolute second differences, which a straight course does not change; those of normal
    noise have sqrt(6) times its standard deviation.

    Example:
        >>> noise([1.0, 2.0, 3.0, 4.0])
        0.0
    """
    if len(values) < 3:
        return 0.0
    bends = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    return statistics.median(bends) / (0.6745 * 6**0.5)
