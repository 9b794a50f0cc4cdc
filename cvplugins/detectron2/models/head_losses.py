"""What the heads do around a loss: find it in the config, follow the iteration, log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.layers import cat
from detectron2.structures import Boxes
from detectron2.utils.events import get_event_storage
from torch import Tensor

from cvplugins.errors import UserError
from cvplugins.losses import CompositeLoss

from .losses import PLACES, DetectorLoss

__all__ = ["configured", "dense_box_loss", "detached", "logged"]


def configured(cfg: Any, place: str) -> Mapping[str, Any] | None:
    """Return the config of the loss in a place, None if the config has no such node.

    Args:
        cfg: Detectron2's config.
        place: One of ``PLACES``.

    Raises:
        UserError: ``cfg.CVPLUGINS.LOSSES`` has keys that are no places.
    """
    losses = cfg.get("CVPLUGINS", {}).get("LOSSES", {})
    unknown = sorted(set(losses) - set(PLACES))
    if unknown:
        raise UserError(f"CVPLUGINS.LOSSES has no place {', '.join(unknown)}; it has {', '.join(PLACES)}")
    return losses.get(place)


def logged(name: str, loss: DetectorLoss, *args: Any) -> Tensor:
    """Compute a loss at the trainer's iteration, and log the parts of a CompositeLoss as ``{name}.{part}``."""
    storage = get_event_storage()
    for each in loss.modules():
        if isinstance(each, CompositeLoss):
            each.iteration = storage.iter
    value = loss(*args)
    for part, share in loss.parts.items():
        storage.put_scalar(f"{name}.{part}", share.item())
    return value


def detached(predictions: Sequence[Tensor]) -> list[Tensor]:
    """Return predictions for a loss of Detectron2 that is computed for its logs only: it then keeps no graph."""
    return [each.detach() for each in predictions]


def dense_box_loss(
    name: str,
    loss: DetectorLoss,
    anchors: Sequence[Boxes],
    deltas: Sequence[Tensor],
    gt_boxes: Sequence[Tensor],
    positive: Tensor,
    transform: Any,
    divisor: float,
) -> Tensor:
    """Compute the loss of the positive anchors of all levels and images.

    Args:
        name: For the log.
        loss: The loss.
        anchors: Of each level.
        deltas: Of each level, ``(N, A, 4)``.
        gt_boxes: Of each image, ``(sum of A, 4)``.
        positive: Which anchors have a true box, ``(N, sum of A)``.
        transform: Detectron2's ``Box2BoxTransform``.
        divisor: Detectron2's normaliser.
    """
    of_image = Boxes.cat(list(anchors)).tensor.expand(len(positive), -1, -1)
    return logged(
        name,
        loss,
        cat(list(deltas), dim=1)[positive],
        of_image[positive],
        torch.stack(list(gt_boxes))[positive],
        transform,
        divisor,
    )
