"""The original Mask2Former with core losses and a matching whose costs are finite.

Importing this imports the project, see :mod:`cvplugins.detectron2.mask2former_project`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.projects.point_rend.point_features import get_uncertain_point_coords_with_randomness, point_sample
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from cvplugins.monitors.matching_costs import total_cost

from .losses import DetectorLoss, PointLoss, QueryClassLoss
from .mask2former_project import has_cuda_op, import_mask2former
from .training import configured, logged

import_mask2former()
from mask2former.maskformer_model import MaskFormer  # noqa: E402 - found by the line above
from mask2former.modeling import criterion as upstream  # noqa: E402
from mask2former.modeling import matcher as upstream_matcher  # noqa: E402

__all__ = ["CvpluginsCriterion", "CvpluginsMaskFormer", "CvpluginsMatcher"]

logger = logging.getLogger(__name__)

Outputs = Mapping[str, Tensor]
Targets = list[dict[str, Tensor]]
Indices = list[tuple[Tensor, Tensor]]


@META_ARCH_REGISTRY.register()
class CvpluginsMaskFormer(MaskFormer):
    """MaskFormer with the losses ``M2F_CLS``, ``M2F_MASK`` and ``M2F_DICE`` of ``cfg.CVPLUGINS.LOSSES``.

    Each takes the place of one of the original's, in the last decoder layer and in all before it, under its name
    (``loss_ce``, ``loss_mask``, ``loss_dice``) and with its weight (``MODEL.MASK_FORMER.CLASS_WEIGHT``,
    ``MASK_WEIGHT``, ``DICE_WEIGHT``): MaskFormer drops losses of other names without a word. Points, matching and
    normalisers stay the original's. With empty entries nothing changes.

    Example::

        MODEL: {META_ARCHITECTURE: CvpluginsMaskFormer}
        CVPLUGINS: {LOSSES: {M2F_MASK: {type: FocalLoss, use_sigmoid: True, alpha: 0.25, loss_weight: 4.0}}}
    """

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments that a config stands for."""
        if not has_cuda_op():
            logger.info(
                "Mask2Former's CUDA op is not compiled: cvplugins computes its deformable attention, "
                "on a GPU with Triton (docs/mask2former.md)"
            )
        options = super().from_config(cfg)
        options["criterion"] = CvpluginsCriterion.like(
            options["criterion"],
            CvpluginsMatcher.like(options["criterion"].matcher, cfg.CVPLUGINS.MASK2FORMER),
            cls_loss=configured(cfg, "M2F_CLS"),
            mask_loss=configured(cfg, "M2F_MASK"),
            dice_loss=configured(cfg, "M2F_DICE"),
        )
        return options


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


class CvpluginsMatcher(upstream_matcher.HungarianMatcher):
    """HungarianMatcher of mask2former/modeling/matcher.py whose costs are finite.

    The original hands NaN to scipy, which says "matrix contains invalid numeric entries". This one names the cost and
    the queries. While all costs are finite the assignment is the original's, of the same random points.

    Args:
        args: What HungarianMatcher takes.
        replace_by: Cost that takes the place of one that is not finite; None raises ``NonFiniteError``.
        targets_at_once: For how many objects of an image costs are computed at once; None takes all.
        options: What HungarianMatcher takes.
    """

    def __init__(
        self, *args: Any, replace_by: float | None = None, targets_at_once: int | None = None, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.replace_by = replace_by
        self.targets_at_once = targets_at_once

    @classmethod
    def like(cls, other: upstream_matcher.HungarianMatcher, node: CfgNode) -> CvpluginsMatcher:
        """Return a matcher with the costs of another one, and the options of ``cfg.CVPLUGINS.MASK2FORMER``."""
        costs = {name: getattr(other, name) for name in ("cost_class", "cost_mask", "cost_dice", "num_points")}
        return cls(**costs, replace_by=node.REPLACE_COST or None, targets_at_once=node.TARGETS_AT_ONCE or None)

    @torch.no_grad()
    def memory_efficient_forward(self, outputs: Outputs, targets: Targets) -> Indices:
        """Return the matched queries and objects of each image."""
        found = zip(outputs["pred_logits"], outputs["pred_masks"], targets, strict=True)
        return [self._match(index, *each) for index, each in enumerate(found)]

    def _match(self, index: int, logits: Tensor, masks: Tensor, target: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        places = torch.rand(1, self.num_points, 2, device=masks.device)
        at_points = point_sample(masks[:, None], places.repeat(len(masks), 1, 1), align_corners=False).squeeze(1)
        step = self.targets_at_once or max(len(target["labels"]), 1)
        parts = zip(target["labels"].split(step), target["masks"].split(step), strict=True)
        costs = [
            total_cost(self._costs(logits, at_points, places, *part), self.replace_by, f"image {index} of the batch")
            for part in parts
        ]
        pairs = linear_sum_assignment(torch.cat(costs, dim=1).cpu())
        queries, objects = (torch.as_tensor(each, dtype=torch.int64) for each in pairs)
        return queries, objects

    def _costs(
        self, logits: Tensor, at_points: Tensor, places: Tensor, labels: Tensor, masks: Tensor
    ) -> dict[str, Tensor]:
        """Return matrices of all queries and some objects; summed in this order they are the original's."""
        true = point_sample(masks.to(at_points)[:, None], places.repeat(len(masks), 1, 1), align_corners=False)
        with torch.autocast(at_points.device.type, enabled=False):
            at_points, true = at_points.float(), true.squeeze(1).float()
            mask_cost = self.cost_mask * upstream_matcher.batch_sigmoid_ce_loss_jit(at_points, true)
            class_cost = self.cost_class * -logits.softmax(-1)[:, labels]
            dice_cost = self.cost_dice * upstream_matcher.batch_dice_loss_jit(at_points, true)
        return {"mask": mask_cost, "class": class_cost, "dice": dice_cost}
