"""What a loss says of itself to the heads that call it, and how to ask a loss of somebody else."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import nn

__all__ = ["Loss", "ignored_index", "uses_sigmoid"]


class Loss(nn.Module):
    """Base of all losses of this package.

    Attributes:
        target_kind: ``"labels"``: the target holds classes, one of which may be ``ignore_index``. ``"values"``: dense
            numbers such as boxes, images and features. ``"parts"``: whatever the losses within this one take.
        use_sigmoid: Whether the scores are one sigmoid per class.
        ignore_index: The label that adds no loss; None if there is none.
    """

    target_kind: ClassVar[Literal["labels", "values", "parts"]] = "values"
    use_sigmoid: bool = False
    ignore_index: int | None = None


def uses_sigmoid(loss: nn.Module) -> bool:
    """Return whether the scores of a loss are one sigmoid per class; those of OpenMMLab have the same attribute.

    >>> uses_sigmoid(nn.BCEWithLogitsLoss())  # torch's say nothing
    False
    """
    return bool(getattr(loss, "use_sigmoid", False))


def ignored_index(loss: nn.Module) -> int | None:
    """Return the label that a loss ignores if a call names none; None if it says nothing.

    >>> ignored_index(nn.CrossEntropyLoss(ignore_index=255))
    255
    """
    found: int | None = getattr(loss, "ignore_index", None)
    return found
