"""Core losses in the places of Detectron2's heads: its arguments in the core's order, its normalisers as divisors.

Nothing here imports Detectron2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cvplugins import losses as core
from cvplugins.errors import UserError
from cvplugins.losses import build_loss
from cvplugins.losses.composite import total
from cvplugins.losses.contract import uses_sigmoid
from cvplugins.losses.from_config import check_loss_weight

__all__ = [
    "MASK2FORMER_PLACES",
    "PLACES",
    "BoxLoss",
    "ClassLoss",
    "DetectorLoss",
    "MaskLoss",
    "ObjectnessLoss",
    "PointLoss",
    "QueryClassLoss",
    "SigmoidClassLoss",
]

WRAPPERS = (core.CompositeLoss, core.OHEMLoss)


class DetectorLoss(nn.Module):
    """A core loss in one place of a detector; no arithmetic but ``loss_weight``.

    Args:
        loss: The core loss, or a module that is called like one.
        loss_weight: Factor of the loss; Detectron2's own factor for the place counts beside it.

    Attributes:
        parts: What each part of a CompositeLoss added in the last call.

    Raises:
        UserError: The loss does not fit the place.
    """

    accepted: tuple[type[nn.Module], ...] = ()
    only_sigmoids = False
    of_sigmoids = "BCELoss, or FocalLoss with use_sigmoid=True"

    def __init__(self, loss: nn.Module, loss_weight: float = 1.0) -> None:
        super().__init__()
        check_loss_weight(loss_weight, type(loss).__name__)
        for part in _leaves(loss):
            if isinstance(part, core.LOSSES) and not isinstance(part, self.accepted):
                raise UserError(f"{type(part).__name__} does not fit here; use {self._names()}")
            if self.only_sigmoids and not uses_sigmoid(part):
                raise UserError(
                    f"{type(part).__name__} reads its scores as a softmax, but here stand sigmoids; "
                    f"use {self.of_sigmoids}"
                )
        self.loss = loss
        self.loss_weight = loss_weight
        self.parts: dict[str, Tensor] = {}

    @classmethod
    def of(cls, loss: Mapping[str, Any] | nn.Module | None) -> DetectorLoss | None:
        """Return the loss of a config, as OpenMMLab takes it, or around a module; None for an empty one.

        Args:
            loss: Such as ``{"type": "FocalLoss", "gamma": 2.0, "loss_weight": 0.5}``, or a module of the core. What is
                None in a config counts as not given, because YAML cannot take away the option of a base.

        Raises:
            UserError: An unknown name, a wrong option, or a loss that does not fit the place.

        Example:
            >>> ClassLoss.of({"type": "FocalLoss", "gamma": 2.0}).loss.gamma
            2.0
        """
        if loss is None or isinstance(loss, cls):
            return loss
        if isinstance(loss, nn.Module):
            return cls(loss)
        if not isinstance(loss, Mapping):
            raise UserError(f"expected a loss such as {{type: FocalLoss, gamma: 2.0}}, but got {loss!r}")
        given = {name: value for name, value in loss.items() if value is not None and (name, value) != ("type", "")}
        if not given:
            return None
        if "type" not in given:
            raise UserError(f"{', '.join(given)} without a loss: name it in type, or set what a base left here to null")
        weight = given.pop("loss_weight", 1.0)
        return cls(build_loss(given, (*cls.accepted, *WRAPPERS)), weight)

    @property
    def use_sigmoid(self) -> bool:
        """Whether the scores are one sigmoid per class."""
        return uses_sigmoid(self.loss)

    def compute(self, predicted: Tensor, target: Tensor, **call: Any) -> Tensor:
        """Call the core; of a CompositeLoss keep what the parts add, for the log."""
        if not isinstance(self.loss, core.CompositeLoss):
            return self.loss_weight * self.loss(predicted, target, **call)
        parts = self.loss.parts(predicted, target, **call)
        self.parts = {name: self.loss_weight * part.detach() for name, part in parts.items()}
        return self.loss_weight * total(parts)

    def try_out(self, num_classes: int = 2) -> None:
        """Compute the loss of two samples, so that options that cannot work are found before any training.

        Args:
            num_classes: Without the background.

        Raises:
            UserError: The loss says what is wrong, or is no single number.
        """
        try:
            with torch.no_grad():
                loss = self.example(num_classes)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{type(self.loss).__name__}: {error}") from error
        if loss.ndim:
            raise UserError(
                f"{type(self.loss).__name__} gives {tuple(loss.shape)} values, not one; use reduction='mean'"
            )

    def example(self, num_classes: int) -> Tensor:
        """Return the loss of two samples."""
        raise NotImplementedError

    @classmethod
    def _names(cls) -> str:
        return ", ".join(each.__name__ for each in cls.accepted) + ", or OHEMLoss or CompositeLoss of these"


class ClassLoss(DetectorLoss):
    """Loss of the classes of boxes: of softmax scores with a background, or of one sigmoid per class.

    Example:
        >>> ClassLoss(core.CrossEntropyLoss())(torch.zeros(4, 3), torch.tensor([0, 1, 2, 2]), 4)
        tensor(1.0986)
    """

    accepted: tuple[type[nn.Module], ...] = (core.CrossEntropyLoss, core.BCELoss, core.FocalLoss)

    def forward(self, scores: Tensor, labels: Tensor, divisor: float) -> Tensor:
        """Compute the loss of ``(N, K + 1)`` or, of sigmoids, ``(N, K)``; label K is background and -1 ignored."""
        return self.compute(scores, labels.long(), ignore_index=-1, divisor=divisor)

    def example(self, num_classes: int) -> Tensor:
        """Return the loss of two samples."""
        columns = num_classes + (not self.use_sigmoid)
        return self(torch.zeros(2, columns), torch.tensor([0, num_classes]), 2)


class SigmoidClassLoss(ClassLoss):
    """The same for heads whose inference applies a sigmoid, as RetinaNet's does."""

    accepted = (core.BCELoss, core.FocalLoss)
    only_sigmoids = True


class ObjectnessLoss(DetectorLoss):
    """Loss of RPN's scores, one sigmoid each."""

    accepted = (core.BCELoss, core.FocalLoss)
    only_sigmoids = True

    def forward(self, scores: Tensor, labels: Tensor, divisor: float) -> Tensor:
        """Compute the loss of ``(N,)``; label 1 is an object, 0 background."""
        # To the core the object is class 0 of one and the background class 1, as in mmdet's RPN.
        return self.compute(scores.unsqueeze(1), 1 - labels.long(), divisor=divisor)

    def example(self, num_classes: int) -> Tensor:
        """Return the loss of two samples."""
        return self(torch.zeros(2), torch.tensor([0, 1]), 2)


class BoxLoss(DetectorLoss):
    """Loss of boxes: of their offsets, or of the decoded boxes, as the loss wants it.

    Raises:
        UserError: Also for a CompositeLoss of both kinds.
    """

    accepted = (core.L1Loss, core.SmoothL1Loss, core.L2Loss, core.CharbonnierLoss, core.BoxIoULoss)

    def __init__(self, loss: nn.Module, loss_weight: float = 1.0) -> None:
        super().__init__(loss, loss_weight)
        kinds = {isinstance(part, core.BoxIoULoss) for part in _leaves(loss)}
        if len(kinds) > 1:
            raise UserError("BoxIoULoss compares decoded boxes and does not fit beside losses of offsets; use one kind")
        self.decoded = kinds == {True}

    def forward(self, deltas: Tensor, anchors: Tensor, gt_boxes: Tensor, transform: Any, divisor: float) -> Tensor:
        """Compute the loss of ``(N, 4)`` offsets of foreground anchors.

        Args:
            deltas: What the head predicts.
            anchors: Anchors or proposals.
            gt_boxes: The true boxes.
            transform: Detectron2's ``Box2BoxTransform``.
            divisor: Detectron2's normaliser.
        """
        if self.decoded:
            return self.compute(transform.apply_deltas(deltas, anchors), gt_boxes, divisor=divisor)
        return self.compute(deltas, transform.get_deltas(anchors, gt_boxes), divisor=divisor)

    def example(self, num_classes: int) -> Tensor:
        """Return the loss of two samples."""
        boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 3.0, 3.0]])
        return self.compute(boxes, boxes + 1, divisor=2)


class MaskLoss(DetectorLoss):
    """Loss of the masks of the true classes, one sigmoid per pixel; Detectron2's normaliser is the loss's own mean."""

    accepted = (
        core.BCELoss,
        core.FocalLoss,
        core.DiceLoss,
        core.IoULoss,
        core.TverskyLoss,
        core.FocalTverskyLoss,
        core.GeneralizedDiceLoss,
        core.LovaszLoss,
        core.BoundaryLoss,
        core.HausdorffLoss,
    )
    only_sigmoids = True
    of_sigmoids = (
        f"{ObjectnessLoss.of_sigmoids}, region and boundary losses with mode='binary', LovaszLoss(binary=True)"
    )

    def forward(self, scores: Tensor, masks: Tensor) -> Tensor:
        """Compute the loss of ``(B, M, M)`` scores against masks of 0 and 1 in the same shape."""
        return self.compute(scores.unsqueeze(1), masks.unsqueeze(1))  # one class each

    def example(self, num_classes: int) -> Tensor:
        """Return the loss of two samples."""
        return self(torch.zeros(2, 4, 4), torch.eye(4).expand(2, 4, 4))


class QueryClassLoss(DetectorLoss):
    """Loss of the classes of Mask2Former's queries, a softmax with "no object", which counts less.

    The mean is weighted, as torch's: the factors of the true classes are what the sum is divided by.
    """

    accepted = (core.CrossEntropyLoss, core.FocalLoss)

    def __init__(self, loss: nn.Module, loss_weight: float = 1.0) -> None:
        super().__init__(loss, loss_weight)
        if self.use_sigmoid:
            raise UserError(
                f"{type(loss).__name__} reads its scores as sigmoids, but here stands a softmax; "
                "use CrossEntropyLoss, or FocalLoss without use_sigmoid"
            )

    def forward(self, scores: Tensor, labels: Tensor, class_weight: Tensor) -> Tensor:
        """Compute the loss of ``(N, K + 1)``; label K is "no object", and ``class_weight`` has a factor for each."""
        weight = class_weight[labels]
        return self.compute(scores, labels, weight=weight, divisor=weight.sum())

    def example(self, num_classes: int) -> Tensor:
        """Return the loss of two samples."""
        return self(torch.zeros(2, num_classes + 1), torch.tensor([0, num_classes]), torch.ones(num_classes + 1))


class PointLoss(DetectorLoss):
    """Loss of Mask2Former's masks at points, one sigmoid each; a region is what the points of a mask see of it."""

    regions = (core.DiceLoss, core.IoULoss, core.TverskyLoss, core.FocalTverskyLoss, core.GeneralizedDiceLoss)
    accepted = (core.BCELoss, core.FocalLoss, *regions)
    only_sigmoids = True
    of_sigmoids = f"{ObjectnessLoss.of_sigmoids}, or region losses with mode='binary'"

    def forward(self, scores: Tensor, targets: Tensor, num_masks: float) -> Tensor:
        """Compute the loss of ``(N, P)`` scores of N masks against their shares of the mask, in [0, 1].

        Args:
            scores: Logits.
            targets: Shares.
            num_masks: What the losses of all masks are divided by; a mask's own is a mean over its points, or regions.
        """
        share = len(scores) / num_masks
        value = share * self.compute(scores.unsqueeze(1), targets.unsqueeze(1))  # one class each
        self.parts = {name: share * part for name, part in self.parts.items()}
        return value

    def example(self, num_classes: int) -> Tensor:
        """Return the loss of two samples."""
        return self(torch.zeros(2, 4), torch.eye(2, 4), 2)


# The keys of ``cfg.CVPLUGINS.LOSSES``.
MASK2FORMER_PLACES = ("M2F_CLS", "M2F_MASK", "M2F_DICE")
PLACES: dict[str, type[DetectorLoss]] = {
    "CLS": ClassLoss,
    "BOX_REG": BoxLoss,
    "RPN_CLS": ObjectnessLoss,
    "RPN_LOC": BoxLoss,
    "MASK": MaskLoss,
    "M2F_CLS": QueryClassLoss,
    "M2F_MASK": PointLoss,
    "M2F_DICE": PointLoss,
}


def _leaves(loss: nn.Module) -> list[nn.Module]:
    """Return the losses within a loss, or itself.

    >>> _leaves(core.OHEMLoss(core.BCELoss(), keep_ratio=0.5))
    [BCELoss()]
    """
    if isinstance(loss, core.CompositeLoss):
        return [leaf for part in loss.losses.values() for leaf in _leaves(part)]
    return _leaves(loss.loss) if isinstance(loss, core.OHEMLoss) else [loss]
