"""The original Mask2Former's matching with costs that are finite.

Importing this imports the project, see :mod:`cvplugins.detectron2.mask2former.checkout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.projects.point_rend.point_features import point_sample
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from cvplugins.monitors.matching_costs import total_cost

from .checkout import import_mask2former

import_mask2former()
from mask2former.modeling import matcher as upstream_matcher  # noqa: E402 - found by the line above

__all__ = ["CvpluginsMatcher", "Indices", "Outputs", "Targets"]

Outputs = Mapping[str, Tensor]
Targets = list[dict[str, Tensor]]
Indices = list[tuple[Tensor, Tensor]]


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
