"""The original Mask2Former's criterion with core losses in the place of some of its own.

Importing this imports the project, see :mod:`cvplugins.detectron2.mask2former.checkout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.projects.point_rend.point_features import get_uncertain_point_coords_with_randomness, point_sample
from torch import Tensor, nn

from cvplugins.detectron2.models.head_losses import logged
from cvplugins.detectron2.models.losses import DetectorLoss, PointLoss, QueryClassLoss

from .checkout import import_mask2former
from .matcher import Indices, Outputs, Targets

import_mask2former()
from mask2former.modeling import criterion as upstream  # noqa: E402 - found by the line above

__all__ = ["CvpluginsCriterion"]


class CvpluginsCriterion(upstream.SetCriterion):
    """SetCriterion of mask2former/modeling/criterion.py with core losses in the place of some of its own.

    Args:
        args: What SetCriterion takes.
        cls_loss: Takes the place of ``loss_ce``; a module of the core or its config, SetCriterion's own if empty.
        mask_loss: Takes the place of ``loss_mask``.
        dice_loss: Takes the place of ``loss_dice``.
        options: What SetCriterion takes.
    """

    def __init__(
        self,
        *args: Any,
        cls_loss: nn.Module | Mapping[str, Any] | None = None,
        mask_loss: nn.Module | Mapping[str, Any] | None = None,
        dice_loss: nn.Module | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.cls_loss = QueryClassLoss.of(cls_loss)
        self.mask_loss, self.dice_loss = PointLoss.of(mask_loss), PointLoss.of(dice_loss)

    @classmethod
    def like(cls, other: upstream.SetCriterion, matcher: nn.Module, **losses: Any) -> CvpluginsCriterion:
        """Return a criterion with the options of another one."""
        names = ("weight_dict", "eos_coef", "losses", "num_points", "oversample_ratio", "importance_sample_ratio")
        return cls(other.num_classes, matcher, **{name: getattr(other, name) for name in names}, **losses)

    def loss_labels(self, outputs: Outputs, targets: Targets, indices: Indices, num_masks: float) -> dict[str, Tensor]:
        """Return the loss of the classes."""
        if self.cls_loss is None:
            return super().loss_labels(outputs, targets, indices, num_masks)
        logits = outputs["pred_logits"].float()
        labels = torch.full(logits.shape[:2], self.num_classes, dtype=torch.int64, device=logits.device)
        found = [target["labels"][chosen] for target, (_, chosen) in zip(targets, indices, strict=True)]
        labels[self._get_src_permutation_idx(indices)] = torch.cat(found)
        loss = _logged(outputs, "loss_ce", self.cls_loss, logits.flatten(0, 1), labels.flatten(), self.empty_weight)
        return {"loss_ce": loss}

    def loss_masks(self, outputs: Outputs, targets: Targets, indices: Indices, num_masks: float) -> dict[str, Tensor]:
        """Return the two losses of the masks."""
        if self.mask_loss is None and self.dice_loss is None:
            return super().loss_masks(outputs, targets, indices, num_masks)
        at_points = (*self._points(outputs, targets, indices), num_masks)
        kinds = (
            ("loss_mask", self.mask_loss, upstream.sigmoid_ce_loss_jit),
            ("loss_dice", self.dice_loss, upstream.dice_loss_jit),
        )
        return {
            name: theirs(*at_points) if ours is None else _logged(outputs, name, ours, *at_points)
            for name, ours, theirs in kinds
        }

    def _points(self, outputs: Outputs, targets: Targets, indices: Indices) -> tuple[Tensor, Tensor]:
        """Return logits and true shares of the matched masks at points ``(N, P)``; as the original's loss_masks."""
        masks = outputs["pred_masks"][self._get_src_permutation_idx(indices)][:, None]
        padded, _ = upstream.nested_tensor_from_tensor_list([target["masks"] for target in targets]).decompose()
        true = padded.to(masks)[self._get_tgt_permutation_idx(indices)][:, None]
        with torch.no_grad():
            places = get_uncertain_point_coords_with_randomness(
                masks,
                upstream.calculate_uncertainty,
                self.num_points,
                self.oversample_ratio,
                self.importance_sample_ratio,
            )
            shares = point_sample(true, places, align_corners=False).squeeze(1)
        return point_sample(masks, places, align_corners=False).squeeze(1), shares


def _logged(outputs: Outputs, name: str, loss: DetectorLoss, *args: Any) -> Tensor:
    """Compute a loss, and log its parts for the last decoder layer, whose outputs hold those of the layers before."""
    return logged(name, loss, *args) if "aux_outputs" in outputs else loss(*args)
