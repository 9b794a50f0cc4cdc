"""Non-maximum suppression: greedy, soft, and with the boxes that each kept box has suppressed.

Boxes are ``xyxy``. ``offset`` is 0 if a box ends at ``x2``, 1 if it ends behind the pixel ``x2``: its width is
``x2 - x1 + offset``. A threshold is rounded to the type of the boxes before it is compared, so that an overlap of 3/10
in float32 is not above a threshold of 0.3.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .kernels import torchvision_kernels

__all__ = ["nms", "nms_match", "soft_nms"]

Array = npt.NDArray[np.floating]

CANDIDATES_AT_ONCE = 64  # boxes whose overlaps with all others are computed together


def nms(boxes: Tensor, scores: Tensor, *, iou_threshold: float, offset: int = 0) -> Tensor:
    """Keep the best box, drop those that overlap it by more than the threshold, and so on with the rest.

    Args:
        boxes: ``(N, 4)``; half precision is computed in float32.
        scores: ``(N,)``; equal ones come in the order of torch's sort, which is not always that of the input.
        iou_threshold: A box is dropped above it; at it, it stays.
        offset: 0 or 1, see the module.

    Returns:
        Indices of the kept boxes by falling score, int64, on the device of ``boxes``.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 8.0], [20.0, 0.0, 29.0, 9.0]])
        >>> nms(boxes, torch.tensor([0.8, 0.9, 0.7]), iou_threshold=0.5)
        tensor([1, 2])
    """
    boxes, order = _sort(boxes, scores)
    if offset:
        suppressor = _suppressors(boxes, iou_threshold, offset, at_threshold=False)
        return order[suppressor == torch.arange(len(boxes), device=boxes.device)]
    # Ranks in place of scores: the kernel wants the type of the boxes, in which two scores may be equal.
    ranks = torch.arange(len(boxes), 0, -1, device=boxes.device).to(boxes.dtype)
    return order[torchvision_kernels().nms(boxes, ranks, _rounded(iou_threshold, boxes))]


def nms_match(boxes: Tensor, scores: Tensor, *, iou_threshold: float) -> list[list[int]]:
    """Suppress as :func:`nms` does, at the threshold too, and return with each kept box those that it suppressed.

    Args:
        boxes: ``(N, 4)``.
        scores: ``(N,)``.
        iou_threshold: A box is suppressed at it and above.

    Returns:
        One group for each kept box: its index, then those of the boxes that it suppressed, all by falling score.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 8.0], [20.0, 0.0, 29.0, 9.0]])
        >>> nms_match(boxes, torch.tensor([0.8, 0.9, 0.7]), iou_threshold=0.5)
        [[1, 0], [2]]
    """
    boxes, order = _sort(boxes, scores)
    groups: dict[int, list[int]] = {}
    suppressors = _suppressors(boxes, iou_threshold, offset=0, at_threshold=True)
    for index, suppressor in zip(order.tolist(), suppressors.tolist(), strict=True):
        groups.setdefault(suppressor, []).append(index)
    return list(groups.values())


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    *,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: str,
    offset: int = 0,
) -> tuple[Tensor, Tensor]:
    """Lower the scores of boxes that overlap a better one, instead of dropping them.

    Reference: Bodla et al., Soft-NMS, ICCV 2017, arXiv:1704.04503. The loop is sequential and runs on the CPU.

    Args:
        boxes: ``(N, 4)``; half precision is computed in float32.
        scores: ``(N,)``.
        iou_threshold: ``"naive"`` and ``"linear"`` change scores at it and above.
        sigma: Width of ``"gaussian"``.
        min_score: A box whose score falls below it is dropped.
        method: The factor of a score: ``"naive"`` 0, ``"linear"`` ``1 - iou``, ``"gaussian"`` ``exp(-iou^2 / sigma)``.
        offset: 0 or 1, see the module.

    Returns:
        Boxes with their new scores ``(M, 5)``, and their indices ``(M,)``, by falling new score. Of equal scores the
        first *place* is the better one: the best box swaps places with the one it is compared from, and the last box
        takes the place of a dropped one.

    Raises:
        ValueError: ``method`` is unknown.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0]])
        >>> soft_nms(boxes, torch.tensor([0.5, 0.8]), iou_threshold=0.3, sigma=0.5, min_score=0.01, method="linear")[0]
        tensor([[ 0.0000,  0.0000, 10.0000,  5.0000,  0.8000],
                [ 0.0000,  0.0000, 10.0000, 10.0000,  0.2500]])
    """
    if method not in _FACTORS:
        raise ValueError(f"method must be one of {sorted(_FACTORS)}, not {method!r}")
    xyxy, order = boxes.detach().to("cpu", _computed_in(boxes)), np.arange(len(boxes))
    new_scores = scores.detach().to("cpu", xyxy.dtype).numpy().copy()
    lowest, factors = new_scores.dtype.type(min_score), _FACTORS[method]
    best, count = 0, len(boxes)
    rows: dict[int, Array] = {}
    while best < count:
        found = best + _first_best(new_scores[best:count])
        for places in (new_scores, order):
            places[best], places[found] = places[found], places[best]
        if order[best] not in rows:  # with those of the next few, which are likely to be wanted soon
            likely = order[best + np.argsort(-new_scores[best:count])[:CANDIDATES_AT_ONCE]]
            wanted = [order[best], *(index for index in likely if index != order[best] and index not in rows)]
            overlap = _overlaps(xyxy[wanted], xyxy, offset)
            rows.update(zip(wanted, factors(overlap, iou_threshold, sigma).numpy(), strict=True))
        row = rows.pop(order[best])
        best += 1
        new_scores[best:count] *= row[order[best:count]]
        count = best + _fill_gaps(new_scores, order, best, count, lowest)
    kept = torch.from_numpy(order[:count])
    dets = torch.cat([xyxy[kept], torch.from_numpy(new_scores[:count, None])], 1)
    return dets.to(boxes), kept.to(boxes.device)


def _naive_factors(overlap: Tensor, iou_threshold: float, sigma: float) -> Tensor:
    return overlap.new_ones(()).where(~(overlap >= iou_threshold), 0.0)  # NaN is not at the threshold


def _linear_factors(overlap: Tensor, iou_threshold: float, sigma: float) -> Tensor:
    return (1 - overlap).where(overlap >= iou_threshold, 1.0)


def _gaussian_factors(overlap: Tensor, iou_threshold: float, sigma: float) -> Tensor:
    return (-overlap.square() / sigma).exp()


_FACTORS = {"naive": _naive_factors, "linear": _linear_factors, "gaussian": _gaussian_factors}


def _first_best(scores: Array) -> int:
    """Return the first place of the highest score; NaN is not compared, so that it stays where it is."""
    best = int(scores.argmax())
    if scores[best] == scores[best]:
        return best
    return 0 if np.isnan(scores[0]) else int(np.nanargmax(scores))


def _fill_gaps(scores: Array, order: npt.NDArray[np.int64], first: int, count: int, lowest: np.floating) -> int:
    """Move the last boxes into the places of those below the lowest score; return how many remain."""
    low = scores[first:count] < lowest
    if not low.any():
        return count - first
    remaining = int(len(low) - low.sum())
    gaps = first + np.flatnonzero(low[:remaining])
    fillers = first + remaining + np.flatnonzero(~low[remaining:])[::-1]
    for places in (scores, order):
        places[gaps] = places[fillers]
    return remaining


def _computed_in(boxes: Tensor) -> torch.dtype:
    return torch.float64 if boxes.dtype == torch.float64 else torch.float32


def _sort(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the boxes by falling score, in a type with arithmetic, and the indices that sort them.

    The compiled operators call the same sort: equal scores come in the same order on the same machine.
    """
    order = scores.detach().sort(descending=True).indices
    return boxes.detach()[order].to(_computed_in(boxes)), order


def _rounded(threshold: float, boxes: Tensor) -> float:
    return torch.tensor(threshold, dtype=boxes.dtype).item()


def _suppressors(boxes: Tensor, iou_threshold: float, offset: int, *, at_threshold: bool) -> Tensor:
    """Return for each of the sorted boxes ``(N, 4)`` the first kept box that suppresses it; for a kept one, itself.

    The next few candidates are compared with all that is left at once; which of them are kept is found one by one.
    """
    threshold = _rounded(iou_threshold, boxes)
    left = torch.arange(len(boxes), device=boxes.device)
    suppressor = left.clone()
    while len(left):
        head = left[:CANDIDATES_AT_ONCE]
        overlap = _overlaps(boxes[head], boxes[left], offset)
        hit = overlap >= threshold if at_threshold else overlap > threshold
        hit[:, : len(head)].triu_(1).fill_diagonal_(True)
        kept = torch.tensor(_greedy(hit[:, : len(head)].cpu().numpy()), device=boxes.device)
        # The first kept box that hits: the highest of numbers that fall from box to box.
        falling = torch.arange(len(kept), 0, -1, dtype=torch.int32, device=boxes.device)
        first = (hit[kept] * falling[:, None]).amax(0)
        found = first > 0
        suppressor[left[found]] = head[kept[len(kept) - first[found]]]
        left = left[~found]
    return suppressor


def _overlaps(boxes: Tensor, others: Tensor, offset: int) -> Tensor:
    """Return the IoU of all pairs ``(A, B)``, rounded step by step as the compiled operators do."""
    x1, y1, x2, y2 = boxes.T[:, :, None]
    others_x1, others_y1, others_x2, others_y2 = others.T.contiguous()
    width = torch.minimum(x2, others_x2).sub_(torch.maximum(x1, others_x1)).add_(offset).clamp_(min=0)
    height = torch.minimum(y2, others_y2).sub_(torch.maximum(y1, others_y1)).add_(offset).clamp_(min=0)
    intersection: Tensor = width.mul_(height)
    area = (x2 - x1 + offset) * (y2 - y1 + offset)
    other_area = (others_x2 - others_x1 + offset) * (others_y2 - others_y1 + offset)
    overlap: Tensor = intersection / (area + other_area - intersection)
    return overlap


def _greedy(hit: npt.NDArray[np.bool_]) -> list[int]:
    """Return the rows that no kept row before them hits."""
    open_ = np.ones(len(hit), dtype=bool)
    kept = []
    for row in range(len(hit)):
        if open_[row]:
            kept.append(row)
            open_ &= ~hit[row]
    return kept
