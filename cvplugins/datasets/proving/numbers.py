"""Which numbers of an evaluation a perfect prediction has to bring to 1."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

__all__ = ["numbers_below_perfect"]

# What comes after is a threshold, a size or a class; AR of few detections an image is less than 1 for many objects.
PERFECT = re.compile(
    r"(bbox_|segm_)?(m?AP|AR@?100|AR@300|AR@1000|mIoU|fwIoU|IoU|BoundaryIoU|[map]A[cC][cC]|mDice|.*_precision$)"
)
SMALL = 0.0006  # some evaluators round to three decimals, or to two of per cent


def numbers_below_perfect(numbers: Mapping[str, float], full: float = 1.0) -> tuple[dict[str, float], int]:
    """Return the numbers that are below 1 though the prediction is perfect, and how many were looked at.

    Args:
        numbers: Names, such as ``"bbox/AP50/cat"``, and values. NaN and -1 stand for a class or size without objects.
        full: What a perfect prediction gets: 1, or 100 where the evaluator gives per cent.

    Example:
        >>> numbers_below_perfect({"bbox/AP": 1.0, "bbox/AP/cat": 0.4, "bbox/AP/dog": math.nan, "bbox/F1": 0.2})
        ({'bbox/AP/cat': 0.4}, 2)
    """
    judged = {name: value for name, value in numbers.items() if _is_judged(name) and not _is_undefined(value)}
    return {name: value for name, value in judged.items() if value < full * (1 - SMALL)}, len(judged)


def _is_judged(name: str) -> bool:
    return any(PERFECT.match(part) for part in name.split("/")[:2])


def _is_undefined(value: float) -> bool:
    return math.isnan(value) or value < 0
