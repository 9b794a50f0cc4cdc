"""Exact Euclidean distances on grids: to the nearest pixel of a mask, and signed to the boundary of a class."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "DistanceCache",
    "Regions",
    "boundary_distance",
    "distance_transform",
    "nearest_false",
    "occurring",
    "portions",
    "sides_of",
    "signed_distance",
    "signed_distance_maps",
    "signed_regions",
]

VALUES_AT_ONCE = 1 << 18  # on a CPU: bounds what distances and their losses need beside their results
VALUES_AT_ONCE_ELSEWHERE = 1 << 22  # enough to keep a GPU busy


def distance_transform(mask: Tensor, *, spacing: float | Sequence[float] = 1.0) -> Tensor:
    """Return the Euclidean distance of each element to the nearest element that is False.

    The convention is that of ``scipy.ndimage.distance_transform_edt``, which computes it on the CPU. Elsewhere the
    same values come from one pass along each axis on the device of ``mask``, without waiting for it; beside its
    result that needs a bounded amount of memory, and work in proportion to the elements times the length of an axis.

    Reference of the passes: Felzenszwalb and Huttenlocher 2012, Distance Transforms of Sampled Functions.

    Args:
        mask: Boolean, shape ``(N, *)`` with any number of axes behind the first.
        spacing: Distance between neighbours, one for all axes or one per axis.

    Returns:
        float32 in the shape of ``mask``: 0 where it is False, infinite where a sample of it is never False (SciPy
        leaves that undefined).

    Raises:
        TypeError: ``mask`` is not boolean.
        ValueError: ``mask`` has no axis behind the first, or ``spacing`` does not fit the others.

    Example:
        >>> distance_transform(torch.tensor([[True, True, False, True]]))
        tensor([[2., 1., 0., 1.]])
    """
    axes = mask.ndim - 1
    steps = [float(spacing)] * axes if isinstance(spacing, int | float) else [float(step) for step in spacing]
    if axes < 1 or len(steps) != axes:
        raise ValueError(f"spacing {spacing} does not fit mask {tuple(mask.shape)}: one axis or more behind the first")
    return _each_sample(
        mask, torch.float32, lambda each: _scipy_distance(each, steps), lambda part: _by_axes(part, steps)[0]
    )


def nearest_false(mask: Tensor) -> Tensor:
    """Return where the nearest element that is False lies; see :func:`distance_transform`.

    Args:
        mask: Boolean, shape ``(N, *)``.

    Returns:
        int64 in the shape of ``mask``: an index into the flattened sample, one of them if several are nearest; any
        index where a sample is never False.

    Raises:
        TypeError: ``mask`` is not boolean.

    Example:
        >>> nearest_false(torch.tensor([[[True, True, False], [False, True, True]]]))
        tensor([[[3, 2, 2],
                 [3, 3, 2]]])
    """
    return _each_sample(mask, torch.int64, _scipy_nearest, lambda part: _by_axes(part, [1.0] * (mask.ndim - 1))[1])


def boundary_distance(inside: Tensor, outside: Tensor) -> Tensor:
    """Return the distance of each pixel to the nearest one of the other side.

    Args:
        inside: Which pixels belong to a region, boolean ``(K, *)``.
        outside: Which do not. A pixel on neither side is ignored: no distance is measured to it.

    Returns:
        float32 ``(K, *)``: at least 1 on both sides; 0 for ignored pixels and where there is no other side.

    Example:
        >>> inside = torch.tensor([[True, True, False, False]])
        >>> boundary_distance(inside, ~inside)
        tensor([[2., 1., 1., 2.]])
    """
    distance = torch.where(inside, distance_transform(~outside), distance_transform(~inside))
    return distance.where(distance.isfinite() & (inside | outside), distance.new_zeros(()))


def signed_distance(inside: Tensor, outside: Tensor) -> Tensor:
    """Return the distance to a region, positive outside and not positive inside.

    Args:
        inside: Which pixels belong to a region, boolean ``(K, *)``.
        outside: Which do not; a pixel on neither side is ignored.

    Returns:
        float32 ``(K, *)``, with Kervadec's convention: outside the distance to the nearest pixel of the region, inside
        one minus the distance to the nearest pixel that is not of it. So the pixels along the boundary have 0 inside
        and 1 outside. 0 for ignored pixels and where there is no boundary.

    Example:
        >>> inside = torch.tensor([[True, True, False, False]])
        >>> signed_distance(inside, ~inside)
        tensor([[-1.,  0.,  1.,  2.]])
    """
    distance = boundary_distance(inside, outside)
    return torch.where(inside & (distance > 0), 1 - distance, distance)


class Regions(NamedTuple):
    """The regions that are there: which ``sample * C + class`` each is ``(K,)``, and a map of each ``(K, *)``."""

    rows: Tensor
    maps: Tensor


def occurring(target: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Return which classes occur in which sample, boolean ``(N, C)``.

    Args:
        target: Class indices ``(N, *)``, integers; a value that is no class belongs to none. Or one mask per class,
            ``(N, C, *)`` of floating point, where more than 0.5 is inside.
        num_classes: ``C``.
        ignore_index: A target that is of no class.

    Example:
        >>> occurring(torch.tensor([[2, 2, 0]]), 3, ignore_index=255)
        tensor([[ True, False,  True]])
    """
    if target.is_floating_point():
        return ((target > 0.5) & (target != ignore_index)).flatten(2).any(2)
    target = target.long().flatten(1)
    no_class = (target < 0) | (target >= num_classes) | (target == ignore_index)
    occurs = torch.zeros(len(target), num_classes + 1, dtype=torch.bool, device=target.device)
    return occurs.scatter_(1, target.masked_fill(no_class, num_classes), True)[:, :num_classes]


def sides_of(target: Tensor, rows: Tensor, num_classes: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return which pixels are inside and which are outside of regions, both boolean ``(K, *)``.

    Args:
        target: See :func:`occurring`.
        rows: ``sample * C + class`` of each region, ``(K,)``.
        num_classes: ``C``.
        ignore_index: Pixels with this target are on neither side.

    Example:
        >>> sides_of(torch.tensor([[1, 0, 255]]), torch.tensor([1]), 2, ignore_index=255)
        (tensor([[ True, False, False]]), tensor([[False,  True, False]]))
    """
    if target.is_floating_point():
        target = target.flatten(0, 1)[rows]
        inside = target > 0.5
    else:
        target = target[rows // num_classes]
        inside = target == (rows % num_classes).view(-1, *[1] * (target.ndim - 1))
    valid = target != ignore_index
    return inside & valid, ~inside & valid


def signed_regions(target: Tensor, num_classes: int, ignore_index: int) -> Regions:
    """Return :func:`signed_distance` of the classes that occur in each sample.

    How many these are depends on the labels, so that a GPU is waited for once.

    Args:
        target: See :func:`occurring`.
        num_classes: ``C``.
        ignore_index: Pixels with this target have no distance and make no boundary.

    Example:
        >>> signed_regions(torch.tensor([[2, 2, 0]]), 3, ignore_index=255)
        Regions(rows=tensor([0, 2]), maps=tensor([[ 2.,  1.,  0.],
                [-1.,  0.,  1.]]))
    """
    rows = occurring(target, num_classes, ignore_index).flatten().nonzero().squeeze(1)
    grid = target.shape[2:] if target.is_floating_point() else target.shape[1:]
    maps = torch.empty(len(rows), *grid, device=target.device)
    for part in portions(len(rows), grid.numel(), target.device):
        maps[part] = signed_distance(*sides_of(target, rows[part], num_classes, ignore_index))
    return Regions(rows, maps)


class DistanceCache:
    """Remembers the signed distance maps of the labels used last, so that equal labels cost a look-up.

    It pays where the same labels come back unchanged, without random crops or flips, and is large: for each image
    four bytes a pixel and class that occurs. A label on a GPU is read back to be recognised. Copies are empty.

    Args:
        size: How many images to remember.

    Raises:
        ValueError: ``size`` is not positive.

    Example:
        >>> cache = DistanceCache(10)
        >>> for _ in range(3):
        ...     maps = cache(torch.tensor([[0, 0, 1]]), 2, 255).maps
        >>> cache.hits, cache.misses
        (2, 1)
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a cache for {size} images remembers nothing; use 1 or more, or no cache")
        self.size = size
        self.hits = self.misses = 0
        self._images: OrderedDict[tuple[object, ...], Regions] = OrderedDict()
        self._lock = threading.Lock()  # the replicas of nn.DataParallel share a cache

    def __reduce__(self) -> tuple[type[DistanceCache], tuple[int]]:
        return type(self), (self.size,)

    def __len__(self) -> int:
        return len(self._images)

    def __call__(self, target: Tensor, num_classes: int, ignore_index: int) -> Regions:
        """Return :func:`signed_regions` of ``target``."""
        if not len(target):
            return signed_regions(target, num_classes, ignore_index)
        images = [self._of_image(image, num_classes, ignore_index) for image in torch.split(target, 1)]
        rows = [image.rows + num_classes * sample for sample, image in enumerate(images)]
        return Regions(torch.cat(rows).to(target.device), torch.cat([image.maps for image in images]).to(target.device))

    def _of_image(self, target: Tensor, num_classes: int, ignore_index: int) -> Regions:
        content = target.cpu().contiguous().view(torch.uint8).numpy().tobytes()
        digest = hashlib.blake2b(content, digest_size=16).digest()
        key = (digest, target.shape, target.dtype, num_classes, ignore_index)
        with self._lock:
            if key in self._images:
                self.hits += 1
                self._images.move_to_end(key)
                return self._images[key]
        regions = Regions(*(each.cpu() for each in signed_regions(target, num_classes, ignore_index)))
        with self._lock:
            self.misses += 1
            self._images[key] = regions
            if len(self._images) > self.size:
                self._images.popitem(last=False)
        return regions


def signed_distance_maps(
    target: Tensor,
    num_classes: int,
    *,
    ignore_index: int = 255,
    cache: DistanceCache | None = None,
) -> Tensor:
    """Return a map per class with the signed distance to its boundary; see :func:`signed_distance`.

    Reference: Kervadec et al., Boundary loss for highly unbalanced segmentation, MIDL 2019, arXiv:1812.07032.

    Args:
        target: Class indices ``(N, *)``.
        num_classes: ``C``.
        ignore_index: Pixels with this target have no distance and make no boundary.
        cache: Where to look before computing.

    Returns:
        float32 ``(N, C, *)``; 0 for classes that are absent from a sample or fill it.

    Example:
        >>> signed_distance_maps(torch.tensor([[0, 0, 2, 2]]), 3)
        tensor([[[-1.,  0.,  1.,  2.],
                 [ 0.,  0.,  0.,  0.],
                 [ 2.,  1.,  0., -1.]]])
    """
    find: Callable[[Tensor, int, int], Regions] = signed_regions if cache is None else cache
    rows, maps = find(target, num_classes, ignore_index)
    dense = maps.new_zeros(len(target) * num_classes, *target.shape[1:])
    return dense.index_copy_(0, rows, maps).view(len(target), num_classes, *target.shape[1:])


def portions(count: int, values: int, device: torch.device) -> Iterator[slice]:
    """Yield slices over ``count`` things of so many values each, of no more values than are at once or of one thing.

    >>> [range(5)[part] for part in portions(5, VALUES_AT_ONCE // 3, torch.device("cpu"))]
    [range(0, 3), range(3, 5)]
    """
    at_once = VALUES_AT_ONCE if device.type == "cpu" else VALUES_AT_ONCE_ELSEWHERE
    size = max(1, at_once // max(1, values))
    for start in range(0, count, size):
        yield slice(start, start + size)


def _each_sample(
    mask: Tensor,
    dtype: torch.dtype,
    on_cpu: Callable[[NDArray[np.bool_]], NDArray[Any]],
    elsewhere: Callable[[Tensor], Tensor],
) -> Tensor:
    """Let SciPy work on one sample after another, which is the fastest on a CPU, or a device on several."""
    if mask.dtype != torch.bool:
        raise TypeError(f"mask holds {mask.dtype}; a distance transform takes booleans, such as target == 1")
    result = torch.empty(mask.shape, dtype=dtype, device=mask.device)
    if not mask.numel():
        return result
    if mask.device.type == "cpu":
        for each, found in zip(mask.numpy(), result.numpy(), strict=True):
            found[...] = on_cpu(each)
    else:
        for part in portions(len(mask), mask[0].numel(), mask.device):
            result[part] = elsewhere(mask[part])
    return result


def _scipy_distance(mask: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[Any]:
    from scipy import ndimage  # here, because it takes long to import

    if mask.all():
        return np.full(mask.shape, np.inf)
    distance: NDArray[Any] = ndimage.distance_transform_edt(mask, sampling=spacing)
    return distance


def _scipy_nearest(mask: NDArray[np.bool_]) -> NDArray[Any]:
    from scipy import ndimage  # here, because it takes long to import

    if mask.all() or not mask.any():
        return np.arange(mask.size).reshape(mask.shape)
    places = ndimage.distance_transform_edt(mask, return_distances=False, return_indices=True)
    flat: NDArray[Any] = np.ravel_multi_index(tuple(places), mask.shape)
    return flat


def _by_axes(mask: Tensor, spacing: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return distance and index of the nearest False, from one pass along each axis."""
    length = mask.shape[-1]
    column = torch.arange(length, device=mask.device)
    nearest = _within_rows(mask)
    squares = ((nearest - column) * spacing[-1]).square_()
    first = torch.arange(0, mask[0].numel(), length, device=mask.device).view(*mask.shape[1:-1], 1)
    place = nearest.clamp_(min=0).long() + first  # a row without False has the column -inf
    for axis, step in zip(range(1, mask.ndim - 1), spacing, strict=False):
        across = _across(squares.movedim(axis, -1), place.movedim(axis, -1), step)
        squares, place = (each.movedim(-1, axis) for each in across)
    return squares.sqrt(), place


def _within_rows(mask: Tensor) -> Tensor:
    """Return the column of the nearest False along the last axis; -inf if there is none."""
    column = torch.arange(mask.shape[-1], dtype=torch.float32, device=mask.device).expand(mask.shape)
    before = column.masked_fill(mask, -torch.inf).cummax(-1).values
    behind = column.masked_fill(mask, torch.inf).flip(-1).cummin(-1).values.flip(-1)
    return torch.where(column - before <= behind - column, before, behind)


def _across(squares: Tensor, place: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """Return for each ``i`` of the last axis the least ``squares[j] + (step * (i - j)) ** 2``, and its ``place[j]``."""
    length = squares.shape[-1]
    position = torch.arange(length, dtype=torch.float32, device=squares.device)
    parabolas = ((position.unsqueeze(1) - position) * step).square()
    lines, places = squares.reshape(-1, 1, length), place.reshape(-1, length)
    least, where = torch.empty_like(lines[:, 0]), torch.empty_like(places)
    for part in portions(len(lines), length**2, lines.device):
        least[part], nearest = (lines[part] + parabolas).min(2)
        where[part] = places[part].gather(1, nearest)
    return least.view(squares.shape), where.view(squares.shape)
