"""What is wrong with a box, as training will see it."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["box_problem"]


def box_problem(box: Sequence[float], width: float | None = None, height: float | None = None) -> str | None:
    """Return why nothing can be learnt from a box; None if something can.

    Args:
        box: ``xyxy``, as a reader made it from a file: the right and lower sides are not part of the box.
        width: Of the image, to which the box will be cut; None if unknown.
        height: The same.

    Example:
        >>> box_problem((10, 5, 10, 8))
        'the box (10, 5, 10, 8) has no width'
        >>> box_problem((50, 5, 60, 8), 40, 30)
        'the box (50, 5, 60, 8) lies outside the image of 40 x 30'
    """
    shown = f"the box ({', '.join(f'{side:g}' for side in box)})"
    if not all(map(math.isfinite, box)):
        return f"{shown} is not of numbers"
    left, top, right, bottom = box
    if right <= left:
        return f"{shown} has no width"
    if bottom <= top:
        return f"{shown} has no height"
    if not width or not height:
        return None
    if min(right, width) <= max(left, 0) or min(bottom, height) <= max(top, 0):
        return f"{shown} lies outside the image of {width} x {height}"
    return None
