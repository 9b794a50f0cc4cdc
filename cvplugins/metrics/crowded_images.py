"""Which ground truths a detection may overlap enough, in images with so many of both that all pairs are too many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Candidates", "narrowed"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MANY_PAIRS = 1 << 18  # of an image and class, from which on a grid is faster than all of them
CELLS_OF_A_TRUTH = 4  # along each axis, by the median
ROUNDING = 1e-3  # of a side: the overlap itself is computed in float32


class Candidates(NamedTuple):
    """Ground truths that each detection may overlap: ``listed[first:first + length]``, rising."""

    listed: Integers
    first: Integers
    length: Integers


def narrowed(
    all_pairs: Candidates,
    boxes: NDArray[np.floating],
    truth_boxes: NDArray[np.floating],
    lowest_iou: float,
    crowd: NDArray[np.bool_],
) -> Candidates:
    """Leave out pairs that cannot overlap enough, where a detection has many candidates.

    Two boxes of an IoU of ``t`` differ in width and in height by a factor of at most ``1 / t``, and their centres by no
    more than ``(w + w') / 2 - t * max(w, w')``. Detections are taken by the power of two of their sides, and their
    centres looked up in a grid, which holds how far around each ground truth they may lie.

    Args:
        all_pairs: Every ground truth of the detection's group; detections of one group have the same ``first``.
        boxes: ``xyxy`` of each detection, columns ``(4, D)``.
        truth_boxes: ``xyxy`` of each ground truth, columns ``(4, G)``.
        lowest_iou: No overlap below is enough, above 0.
        crowd: Ground truths of which a detection need not cover a share, ``(G,)``.
    """
    listed, first, count = all_pairs
    of_group = np.zeros(len(listed) + 1, np.int64)
    of_group[first] = count
    crowded = np.flatnonzero(np.bincount(first, minlength=len(of_group)) * of_group >= MANY_PAIRS)
    if not len(crowded):
        return all_pairs
    first, count, lists, size = first.copy(), count.copy(), [listed], len(listed)
    for group in crowded:
        members = np.flatnonzero(all_pairs.first == group)
        truths = listed[group : group + of_group[group]]
        count[members] = 0
        own, others = boxes[:, members].astype(np.float64), truth_boxes[:, truths].astype(np.float64)
        for part, found in _by_size(own, others, lowest_iou, crowd[truths]):
            first[members[part]], count[members[part]] = found.first + size, found.length
            lists.append(truths[found.listed])
            size += len(found.listed)
    return Candidates(np.concatenate(lists), first, count)


def _by_size(
    boxes: Floats, truth_boxes: Floats, lowest_iou: float, crowd: NDArray[np.bool_]
) -> Iterator[tuple[Integers, Candidates]]:
    """Return the detections of each power of two of width and height, and their candidates."""
    sides, truth_sides = boxes[2:] - boxes[:2], truth_boxes[2:] - truth_boxes[:2]
    some = np.flatnonzero((sides > 0).all(axis=0))  # the others overlap nothing
    power = np.frexp(sides[:, some])[1].astype(np.int64)
    _, which = np.unique(power[0] * 4096 + power[1], return_inverse=True)
    order = np.argsort(which, kind="stable")
    # Coordinates far from 0 are rounded by more than sides are.
    slack = 1e-6 * max(np.abs(boxes).max(initial=0), np.abs(truth_boxes).max(initial=0))
    for part in np.split(order, np.flatnonzero(np.diff(which[order])) + 1):
        if not len(part):
            continue
        largest = np.ldexp(1.0, power[:, part[0]])[:, None]
        possible = (truth_sides * (1 + ROUNDING) >= lowest_iou * largest / 2).all(axis=0)
        possible &= (truth_sides * lowest_iou <= largest * (1 + ROUNDING)).all(axis=0) | crowd
        truths = np.flatnonzero(possible)
        reach = _reach(truth_sides[:, truths], largest, lowest_iou, crowd[truths]) + slack
        centre = (truth_boxes[:2, truths] + truth_boxes[2:, truths]) / 2
        points = (boxes[:2, some[part]] + boxes[2:, some[part]]) / 2
        found = _in_grid(points, centre - reach, centre + reach)
        yield some[part], found._replace(listed=truths[found.listed])


def _reach(truth_sides: Floats, largest: Floats, lowest_iou: float, crowd: NDArray[np.bool_]) -> Floats:
    """Return how far from a ground truth's centre that of a detection may lie, ``(2, G)``."""

    def offset(side: Floats, covered: Floats) -> Floats:
        return np.asarray((side + truth_sides) / 2 - lowest_iou * covered)

    # For a detection's side between half of the largest and the largest, the farthest is at one of these.
    likest = np.clip(truth_sides, largest / 2, largest)
    reach = np.maximum(*(offset(side, np.maximum(side, truth_sides)) for side in (largest, likest)))
    # Of a crowd a share of the detection has to be covered, however small that is.
    of_crowd = np.maximum(*(offset(side, side) for side in (largest, largest / 2)))
    reach = np.where(crowd, np.maximum(reach, of_crowd), reach)
    return np.asarray(reach + ROUNDING * (largest + truth_sides))


def _in_grid(points: Floats, low: Floats, high: Floats) -> Candidates:
    """Return the rectangles that each point may lie in: those that touch its cell.

    Args:
        points: ``(2, D)``.
        low: Lower corners of the rectangles, ``(2, G)``.
        high: Upper corners.
    """
    origin = points.min(axis=1, keepdims=True)
    extent = points.max(axis=1, keepdims=True) - origin
    inside = np.flatnonzero(((high >= origin) & (low <= origin + extent)).all(axis=0))
    if not len(inside):
        return Candidates(inside, np.zeros(points.shape[1], np.int64), np.zeros(points.shape[1], np.int64))
    low, high = low[:, inside], high[:, inside]
    cell = np.median(high - low, axis=1, keepdims=True) / CELLS_OF_A_TRUTH
    cell = np.maximum(np.maximum(cell, extent / 1024), np.finfo(np.float32).tiny)
    while True:
        shape = (extent / cell).astype(np.int64) + 1
        begin, end = (np.clip((corner - origin) // cell, 0, shape - 1).astype(np.int64) for corner in (low, high))
        spans = end - begin + 1
        covered = spans.prod(axis=0)
        # A rectangle that is much larger than the median would take a long list of cells.
        if covered.sum() <= 4 * CELLS_OF_A_TRUTH**2 * len(inside) + points.shape[1]:
            break
        cell *= 2
    owner = np.repeat(np.arange(len(inside)), covered)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(covered) - covered, covered)
    rows, columns = begin[1, owner] + place // spans[0, owner], begin[0, owner] + place % spans[0, owner]
    cells = rows * shape[0, 0] + columns
    counts = np.bincount(cells, minlength=int(shape.prod()))
    own = np.clip((points - origin) // cell, 0, shape - 1).astype(np.int64)
    own_cell = own[1] * shape[0, 0] + own[0]
    listed = inside[owner[np.argsort(cells, kind="stable")]]
    return Candidates(listed, (np.cumsum(counts) - counts)[own_cell], counts[own_cell])
