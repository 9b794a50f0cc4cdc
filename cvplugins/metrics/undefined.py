"""Undefined numbers are NaN: made by a divisor of 0, left out of means, None in plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["by_class", "defined", "divide", "mean_of_defined", "none_if_undefined"]


def divide(part: ArrayLike, whole: ArrayLike, left_out: ArrayLike = False) -> NDArray[np.float64]:
    """Divide in float64; NaN where ``whole`` is 0 or an element is left out.

    >>> divide(np.array([1, 0]), np.array([2, 0]))
    array([0.5, nan])
    """
    defined = (np.asarray(whole) != 0) & ~np.asarray(left_out)
    return np.asarray(np.where(defined, part, np.nan) / np.where(defined, whole, 1))


def defined(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return what is not NaN.

    >>> defined({"AP50": 0.5, "AP_small": float("nan")})
    {'AP50': 0.5}
    """
    return {name: value for name, value in numbers.items() if not math.isnan(value)}


def mean_of_defined(values: NDArray[np.floating]) -> float:
    """Return the mean of what is not NaN; NaN if nothing is.

    >>> mean_of_defined(np.array([1.0, np.nan, 0.0]))
    0.5
    """
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def none_if_undefined(value: float | NDArray[np.floating]) -> float | None:
    """Return a number for JSON, which has no NaN.

    >>> none_if_undefined(float("nan"))
    """
    return None if np.isnan(value) else float(value)


def by_class(columns: Mapping[str, NDArray[Any]], num_classes: int) -> list[dict[str, float | None]]:
    """Return the numbers of each class for JSON, from an array ``(C,)`` a number.

    >>> by_class({"AP": np.array([0.5, np.nan])}, 2)
    [{'AP': 0.5}, {'AP': None}]
    """
    plain = {name: [none_if_undefined(value) for value in values] for name, values in columns.items()}
    return [{name: values[index] for name, values in plain.items()} for index in range(num_classes)]
