"""Box overlap losses: ``1 - IoU`` and the penalties that were added to it, for aligned pairs of boxes.

Their derivatives are written out: the gradient of each box is computed along with its loss and is all that is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from .chunks import chunks
from .contract import Loss
from .once import once_differentiable
from .reduction import at_least_float32, check_reduction, weight_and_reduce

__all__ = ["BOX_IOU_KINDS", "BoxIoULoss", "box_iou_loss", "xywh_to_xyxy"]

# Areas of longer sides than that overflow in the type, or their sums, products and quotients do.
LONGEST = {torch.float32: 1e17, torch.float64: 1e140}
MEASURES = 4  # of so many times the boxes are pieces small: what is computed beside them has to stay in the cache too


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Return corners of boxes given by centre and size; every box loss wants corners.

    Args:
        boxes: Centre x, centre y, width, height, shape ``(..., 4)``.

    Example:
        >>> xywh_to_xyxy(torch.tensor([2.0, 2.0, 4.0, 2.0]))
        tensor([0., 1., 4., 3.])
    """
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def box_iou_loss(
    boxes: Tensor,
    target: Tensor,
    *,
    kind: str = "giou",
    weight: Tensor | None = None,
    reduction: str = "mean",
    divisor: float | Tensor | None = None,
    eps: float = 1e-7,
) -> Tensor:
    """Loss of each predicted box against the target in the same row.

    ======================  ==================================================================================
    ``iou``                 ``1 - IoU``
    ``giou``                and the share of the enclosing box that is empty (Rezatofighi 2019, arXiv:1902.09630)
    ``diou``                and the squared distance of the centres over the enclosing diagonal's (Zheng 2020,
                            arXiv:1911.08287)
    ``ciou``                diou and the difference of aspect ratios (the same paper)
    ``eiou``                diou and the differences of width and height (Zhang 2021, arXiv:2101.08158)
    ``siou``                angle, distance and shape costs (Gevorgyan 2022, arXiv:2205.12740; mmdet's with
                            ``neg_gamma=True``)
    ``alpha_iou``           ``1 - IoU ** 3`` (He 2021, arXiv:2110.13675)
    ======================  ==================================================================================

    Value and gradient are finite for all finite boxes. A box whose ends are swapped is empty: it overlaps nothing and
    has no area, and what encloses it encloses its four ends; its centre and its (negative) size still pull. Coordinates
    count up to 1e17 in float32. A gradient that half precision cannot hold is the largest that it can.

    Args:
        boxes: Predictions, ``xyxy``, shape ``(..., 4)``; see :func:`xywh_to_xyxy` for others.
        target: Ground truth, ``xyxy``, shape ``(..., 4)``; it gets no gradient.
        kind: One of the table.
        weight: Factor per box ``(...)`` or per coordinate ``(..., 4)``, whose mean counts (as in mmdet).
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        divisor: What ``"mean"`` divides by; the number of boxes if None.
        eps: Added to areas and lengths that divide.

    Returns:
        A scalar, or ``(...)`` for ``"none"``. At least float32.

    Raises:
        ValueError: An unknown ``kind`` or ``reduction``, or shapes that do not fit.

    Example:
        >>> box_iou_loss(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]), kind="iou")  # 1 - 2 / 6
        tensor(0.6667)
    """
    if kind not in BOX_IOU_KINDS:
        raise ValueError(f"unknown kind {kind!r}; use one of {', '.join(map(repr, BOX_IOU_KINDS))}")
    if boxes.shape != target.shape or boxes.shape[-1:] != (4,):
        raise ValueError(
            f"target {tuple(target.shape)} does not fit boxes {tuple(boxes.shape)}: both have to be (..., 4)"
        )
    largest = torch.finfo(boxes.dtype).max if boxes.dtype in (torch.float16, torch.bfloat16) else None
    boxes, target = at_least_float32(boxes), at_least_float32(target)
    target = target if target.is_floating_point() else target.to(boxes.dtype)
    pairs = boxes.reshape(-1, 4), target.reshape(-1, 4)
    loss: Tensor = _Losses.apply(*pairs, kind, eps, largest)  # type: ignore[no-untyped-call]
    loss = loss.reshape(boxes.shape[:-1])
    if weight is not None and weight.shape == boxes.shape:
        weight = weight.mean(-1)
    return weight_and_reduce(loss, weight, reduction, divisor)


class BoxIoULoss(Loss):
    """Module form of :func:`box_iou_loss`.

    In mmdet it needs ``reg_decoded_bbox=True`` in the head, as every loss on boxes instead of offsets does.

    Args:
        kind: ``iou``, ``giou``, ``diou``, ``ciou``, ``eiou``, ``siou`` or ``alpha_iou``.
        reduction: ``"none"``, ``"sum"`` or ``"mean"``.
        eps: Added to areas and lengths that divide.

    Example:
        >>> BoxIoULoss(kind="giou")(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[0.0, 0, 2, 2]]))
        tensor(0.)
    """

    def __init__(self, kind: str = "giou", reduction: str = "mean", eps: float = 1e-7) -> None:
        super().__init__()
        if kind not in BOX_IOU_KINDS:
            raise ValueError(f"unknown kind {kind!r}; use one of {', '.join(map(repr, BOX_IOU_KINDS))}")
        self.kind = kind
        self.reduction = check_reduction(reduction)
        self.eps = eps

    def forward(self, boxes: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Compute the loss; ``call`` may hold ``weight``, ``divisor`` and ``reduction``."""
        return box_iou_loss(boxes, target, kind=self.kind, eps=self.eps, **{"reduction": self.reduction, **call})


class _Pair(NamedTuple):
    """Measures of aligned boxes: ``(N,)`` the first two, ``(2, N)``, of x and y, the others."""

    iou: Tensor
    union: Tensor  # with eps
    overlap: Tensor
    size: Tensor  # negative where the ends are swapped
    target_size: Tensor  # at least 0
    enclosing: Tensor  # of all four ends
    offset: Tensor  # of the target's centre
    side: Tensor  # (4, N): 1 where the target has the edge further up, -1 where the prediction has, 0 for a tie

    @property
    def extent(self) -> Tensor:
        """The size, 0 where it is negative."""
        return self.size.clamp(min=0)


class _Slopes(NamedTuple):
    """Derivatives of a loss by measures, where it depends on them directly."""

    iou: Tensor | float = -1.0
    union: Tensor | float = 0.0
    size: Tensor | None = None
    enclosing: Tensor | None = None
    offset: Tensor | None = None


class _Losses(Function):
    """Loss of each pair of boxes ``(N, 4)``."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, target: Tensor, kind: str, eps: float, largest: float | None) -> Tensor:
        loss, gradient = boxes.new_empty(len(boxes)), torch.empty_like(boxes) if boxes.requires_grad else None
        for rows, _, _ in chunks(boxes.unsqueeze(2).expand(-1, -1, MEASURES)):
            of_rows = None if gradient is None else gradient[rows]
            loss[rows] = _piece(boxes[rows], target[rows], kind, eps, of_rows)
        ctx.save_for_backward(gradient)
        ctx.largest = largest
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        gradient = gradient * outer.unsqueeze(1)
        if ctx.largest is not None:
            gradient = gradient.clamp_(-ctx.largest, ctx.largest)
        return gradient, None, None, None, None


def _piece(boxes: Tensor, target: Tensor, kind: str, eps: float, gradient: Tensor | None) -> Tensor:
    """Return the losses of some pairs, and write their gradient."""
    pair = _measure(boxes, target, eps)
    loss, slopes = BOX_IOU_KINDS[kind](pair, eps)
    if gradient is not None:
        _by_coordinates(pair, slopes, gradient.t())
    return loss


def _measure(boxes: Tensor, target: Tensor, eps: float) -> _Pair:
    # Rows of one coordinate are what is fast; t().contiguous() takes four times as long to make them.
    boxes, target = _within(torch.stack(boxes.unbind(1))), _within(torch.stack(target.unbind(1)))
    low, high, target_low, target_high = boxes[:2], boxes[2:], target[:2], target[2:]
    overlap = torch.min(high, target_high).sub_(torch.max(low, target_low)).relu_()
    size, target_size = high - low, (target_high - target_low).relu_()
    extent = size.relu()
    intersection = overlap[0] * overlap[1]
    union = torch.addcmul(extent[0] * extent[1] - intersection, target_size[0], target_size[1]).add_(eps)
    ends, target_ends = _sorted_ends(low, high), _sorted_ends(target_low, target_high)
    return _Pair(
        iou=intersection.div_(union),
        union=union,
        overlap=overlap,
        size=size,
        target_size=target_size,
        enclosing=torch.max(ends[2:], target_ends[2:]).sub_(torch.min(ends[:2], target_ends[:2])),
        offset=(target_low + target_high).sub_(low).sub_(high).div_(2),
        side=target_ends.sub_(ends).sign_(),
    )


def _within(boxes: Tensor) -> Tensor:
    """Return coordinates up to what areas can be computed of; what is infinite becomes NaN and so stays visible."""
    longest = LONGEST[boxes.dtype]
    return boxes.clamp(-longest, longest).add_(boxes, alpha=0)


def _sorted_ends(low: Tensor, high: Tensor) -> Tensor:
    ends = low.new_empty(4, low.shape[1])
    torch.minimum(low, high, out=ends[:2])
    torch.maximum(low, high, out=ends[2:])
    return ends


def _by_coordinates(pair: _Pair, slopes: _Slopes, gradient: Tensor) -> None:
    """Write the gradient of the coordinates ``(4, N)``: at a tie both boxes have half of an edge."""
    of_iou = slopes.iou / pair.union
    of_union = slopes.union - of_iou * pair.iou
    common = tilt = pair.overlap.sign().mul_(pair.overlap.flip(0)).mul_((of_iou - of_union).mul_(0.5))
    if slopes.enclosing is not None:
        common, tilt = torch.add(tilt, slopes.enclosing, alpha=0.5), torch.sub(tilt, slopes.enclosing, alpha=0.5)
    low, high = (pair.side[:2] * tilt).sub_(common), (pair.side[2:] * tilt).add_(common)
    if slopes.enclosing is not None:  # the ends in their order; the overlap of swapped ones is 0
        swapped = pair.size < 0
        low, high = torch.where(swapped, high, low), torch.where(swapped, low, high)
    common = pair.extent.flip(0).mul_(pair.size >= 0).mul_(of_union)
    if slopes.size is not None:
        common = common.add_(slopes.size)
    low, high = low.sub_(common), high.add_(common)
    if slopes.offset is not None:
        low, high = low.sub_(slopes.offset, alpha=0.5), high.sub_(slopes.offset, alpha=0.5)
    gradient[:2].copy_(low)
    gradient[2:].copy_(high)


def _iou(pair: _Pair, eps: float) -> tuple[Tensor, _Slopes]:
    return 1 - pair.iou, _Slopes()


def _giou(pair: _Pair, eps: float) -> tuple[Tensor, _Slopes]:
    area = pair.enclosing[0] * pair.enclosing[1] + eps
    filled = pair.union / area
    slopes = _Slopes(union=-1 / area, enclosing=pair.enclosing.flip(0) * (filled / area))
    return (2 - pair.iou).sub_(filled), slopes


def _diou(pair: _Pair, eps: float) -> tuple[Tensor, _Slopes]:
    diagonal = pair.enclosing.square().sum(0) + eps
    distance = pair.offset.square().sum(0) / diagonal
    slopes = _Slopes(enclosing=pair.enclosing * (-2 * distance / diagonal), offset=pair.offset * (2 / diagonal))
    return (1 - pair.iou).add_(distance), slopes


def _ciou(pair: _Pair, eps: float) -> tuple[Tensor, _Slopes]:
    loss, slopes = _diou(pair, eps)
    width, height = pair.extent[0], pair.extent[1] + eps
    angle = torch.atan(pair.target_size[0] / (pair.target_size[1] + eps)) - torch.atan(width / height)
    aspect = 4 / math.pi**2 * angle.square()
    trade_off = aspect / (1 - pair.iou + aspect + eps)  # counts as constant
    turn = trade_off * angle * (8 / math.pi**2) / (width.square() + height.square())
    return loss + trade_off * aspect, slopes._replace(
        size=torch.stack([-turn * height, turn * width]).mul_(pair.size >= 0)
    )


def _eiou(pair: _Pair, eps: float) -> tuple[Tensor, _Slopes]:
    loss, slopes = _diou(pair, eps)
    more, squared = pair.size - pair.target_size, pair.enclosing.square() + eps
    share = more / squared
    cost = more * share
    of_enclosing = torch.add(-2 * pair.enclosing * cost / squared, slopes.enclosing)  # type: ignore[arg-type]
    return loss + cost.sum(0), slopes._replace(size=2 * share, enclosing=of_enclosing)


def _siou(pair: _Pair, eps: float) -> tuple[Tensor, _Slopes]:
    # The paper's cos(2 arcsin(x) - pi / 2) of the angle between centres is sin of twice it: no arcsin, no root.
    squared = pair.offset.square().sum(0) + eps
    angle = 2 * (pair.offset[0] * pair.offset[1]).abs() / squared
    gamma = 2 - angle
    across = pair.enclosing + eps
    part = (pair.offset / across).square()
    near = torch.exp(-gamma * part)
    turn = 2 * (pair.offset.sign() * pair.offset.abs().flip(0) - angle * pair.offset) / squared
    # Of the shape cost (1 - exp(-d)) ** 4, where d is the difference over the larger one.
    larger = torch.max(pair.size, pair.target_size) + eps  # the target's is not negative
    more = pair.size - pair.target_size
    differs = more.abs() / larger
    alike = torch.exp(-differs)
    loss = 1 - pair.iou + (2 - near.sum(0) + (1 - alike).pow(4).sum(0)) / 2
    return loss, _Slopes(
        size=2 * (1 - alike).pow(3) * alike * (more.sign() - differs * (more > 0)) / larger,
        enclosing=-gamma * near * part / across,
        offset=gamma * near * pair.offset / across.square() - (near * part).sum(0) * turn / 2,
    )


def _alpha_iou(pair: _Pair, eps: float) -> tuple[Tensor, _Slopes]:
    return 1 - pair.iou**3, _Slopes(iou=-3 * pair.iou.square())


BOX_IOU_KINDS: dict[str, Callable[[_Pair, float], tuple[Tensor, _Slopes]]] = {
    "iou": _iou,
    "giou": _giou,
    "diou": _diou,
    "ciou": _ciou,
    "eiou": _eiou,
    "siou": _siou,
    "alpha_iou": _alpha_iou,
}
