"""Box overlap losses: ``1 - IoU`` and the penalties that were added to it, for aligned pairs of boxes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

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
        target: Ground truth, ``xyxy``, shape ``(..., 4)``.
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
    pair = _measure(at_least_float32(boxes), at_least_float32(target), eps)
    loss = BOX_IOU_KINDS[kind](pair, eps)
    if weight is not None and weight.ndim == boxes.ndim:
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
    """Measures of aligned boxes, each ``(...)``: sizes, distance of centres, the enclosing box."""

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
    left, top, right, bottom = boxes.unbind(-1)
    target_left, target_top, target_right, target_bottom = target.unbind(-1)
    width, height = right - left, bottom - top
    target_width, target_height = target_right - target_left, target_bottom - target_top
    across = (torch.min(right, target_right) - torch.max(left, target_left)).clamp(min=0)
    down = (torch.min(bottom, target_bottom) - torch.max(top, target_top)).clamp(min=0)
    intersection = across * down
    union = width * height + target_width * target_height - intersection
    return _Pair(
        iou=intersection / (union + eps),
        union=union,
        width=width,
        height=height,
        target_width=target_width,
        target_height=target_height,
        right=(target_left + target_right - left - right) / 2,
        down=(target_top + target_bottom - top - bottom) / 2,
        enclosing_width=torch.max(right, target_right) - torch.min(left, target_left),
        enclosing_height=torch.max(bottom, target_bottom) - torch.min(top, target_top),
    )


def _iou(pair: _Pair, eps: float) -> Tensor:
    return 1 - pair.iou


def _giou(pair: _Pair, eps: float) -> Tensor:
    area = pair.enclosing_width * pair.enclosing_height
    return 1 - pair.iou + (area - pair.union) / (area + eps)


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
