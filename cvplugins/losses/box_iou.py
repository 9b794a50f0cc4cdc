"""Box overlap losses: ``1 - IoU`` and the penalties that were added to it, for aligned pairs of boxes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function

from .once import once_differentiable
from .reduction import at_least_float32, check_reduction, weight_and_reduce

__all__ = ["BOX_IOU_KINDS", "BoxIoULoss", "box_iou_loss", "xywh_to_xyxy"]


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
    boxes, target = at_least_float32(boxes), at_least_float32(target)
    target = target if target.is_floating_point() else target.to(boxes.dtype)
    pair = _measure(boxes.reshape(-1, 4), target.reshape(-1, 4), eps)
    loss = BOX_IOU_KINDS[kind](pair, eps).reshape(boxes.shape[:-1])
    if weight is not None and weight.shape == boxes.shape:
        weight = weight.mean(-1)
    return weight_and_reduce(loss, weight, reduction, divisor)


class BoxIoULoss(nn.Module):
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
    """Measures of aligned boxes, each ``(N,)``: sizes, distance of centres, the enclosing box; the union has eps."""

    iou: Tensor
    union: Tensor
    width: Tensor
    height: Tensor
    target_width: Tensor
    target_height: Tensor
    right: Tensor
    down: Tensor
    enclosing_width: Tensor
    enclosing_height: Tensor


def _measure(boxes: Tensor, target: Tensor, eps: float) -> _Pair:
    measured: Sequence[Tensor] = _Geometry.apply(boxes, target)  # type: ignore[no-untyped-call]
    intersection, width, height, enclosing_width, enclosing_height, right, down, target_width, target_height = measured
    union = torch.addcmul(target_width * target_height - intersection, width, height) + eps
    return _Pair(
        iou=intersection / union,
        union=union,
        width=width,
        height=height,
        target_width=target_width,
        target_height=target_height,
        right=right,
        down=down,
        enclosing_width=enclosing_width,
        enclosing_height=enclosing_height,
    )


class _Geometry(Function):
    """What the formulas are made of, from boxes ``(N, 4)``; but for the intersection linear in the coordinates."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        """Return intersection, width, height, those of the enclosing box, the way to the target's centre, its size."""
        boxes, target = boxes.t().contiguous(), target.t().contiguous()  # rows of one coordinate are what is fast
        low, high, target_low, target_high = boxes[:2], boxes[2:], target[:2], target[2:]
        overlap = (torch.min(high, target_high) - torch.max(low, target_low)).clamp_(min=0)
        enclosing = torch.max(high, target_high).sub_(torch.min(low, target_low))
        offset = (target_low + target_high).sub_(low).sub_(high).div_(2)
        size, target_size = high - low, target_high - target_low
        # Which box gives an edge: 1 the target has it further up, -1 the prediction, 0 a tie, where both have half.
        ctx.save_for_backward(torch.sign(target - boxes).to(torch.int8), overlap)
        ctx.set_materialize_grads(False)
        measured = [row for pair in (size, enclosing, offset, target_size) for row in pair.unbind()]
        ctx.mark_non_differentiable(*measured[-2:])
        return (overlap[0] * overlap[1], *measured)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor | None) -> tuple[Tensor | None, ...]:
        """Add up what each measure says about each coordinate."""
        side, overlap = ctx.saved_tensors
        of_intersection = outer[0]
        of_size, of_enclosing, of_offset = (_stacked(outer[at : at + 2]) for at in (1, 3, 5))
        common = tilt = torch.zeros_like(overlap)
        if of_intersection is not None:
            common = tilt = overlap.sign() * overlap.flip(0) * (of_intersection / 2)
        if of_enclosing is not None:
            common, tilt = torch.add(common, of_enclosing, alpha=0.5), torch.sub(tilt, of_enclosing, alpha=0.5)
        if of_size is not None:
            common = common + of_size
        tilted = side.view(2, 2, -1) * tilt
        low, high = tilted[0].sub_(common), tilted[1].add_(common)
        if of_offset is not None:
            low.sub_(of_offset, alpha=0.5)
            high.sub_(of_offset, alpha=0.5)
        return tilted.view(4, -1).t(), None


def _stacked(pair: Sequence[Tensor | None]) -> Tensor | None:
    first, second = pair
    if first is None and second is None:
        return None
    like = first if first is not None else second
    return torch.stack([like.new_zeros(like.shape) if each is None else each for each in pair])  # type: ignore[union-attr]


def _iou(pair: _Pair, eps: float) -> Tensor:
    return 1 - pair.iou


def _giou(pair: _Pair, eps: float) -> Tensor:
    area = pair.enclosing_width * pair.enclosing_height + eps
    return 2 - pair.iou - pair.union / area


def _diou(pair: _Pair, eps: float) -> Tensor:
    diagonal = pair.enclosing_width.square() + pair.enclosing_height.square()
    return 1 - pair.iou + (pair.right.square() + pair.down.square()) / (diagonal + eps)


def _ciou(pair: _Pair, eps: float) -> Tensor:
    angle = torch.atan(pair.target_width / (pair.target_height + eps)) - torch.atan(pair.width / (pair.height + eps))
    aspect = 4 / math.pi**2 * angle.square()
    with torch.no_grad():
        trade_off = aspect / (1 - pair.iou + aspect + eps)
    return _diou(pair, eps) + trade_off * aspect


def _eiou(pair: _Pair, eps: float) -> Tensor:
    width = (pair.width - pair.target_width).square() / (pair.enclosing_width.square() + eps)
    height = (pair.height - pair.target_height).square() / (pair.enclosing_height.square() + eps)
    return _diou(pair, eps) + width + height


def _siou(pair: _Pair, eps: float) -> Tensor:
    # The paper's cos(2 arcsin(x) - pi / 2) of the angle between centres is sin of twice it: no arcsin, no root.
    squared = pair.right.square() + pair.down.square()
    angle = 2 * (pair.right * pair.down).abs() / (squared + eps)
    gamma = 2 - angle
    across = (pair.right / (pair.enclosing_width + eps)).square()
    down = (pair.down / (pair.enclosing_height + eps)).square()
    distance = 2 - torch.exp(-gamma * across) - torch.exp(-gamma * down)
    width = (pair.width - pair.target_width).abs() / (torch.max(pair.width, pair.target_width) + eps)
    height = (pair.height - pair.target_height).abs() / (torch.max(pair.height, pair.target_height) + eps)
    shape = (1 - torch.exp(-width)) ** 4 + (1 - torch.exp(-height)) ** 4
    return 1 - pair.iou + (distance + shape) / 2


def _alpha_iou(pair: _Pair, eps: float) -> Tensor:
    return 1 - pair.iou**3


BOX_IOU_KINDS: dict[str, Callable[[_Pair, float], Tensor]] = {
    "iou": _iou,
    "giou": _giou,
    "diou": _diou,
    "ciou": _ciou,
    "eiou": _eiou,
    "siou": _siou,
    "alpha_iou": _alpha_iou,
}
