"""mmdet's Hungarian matching with costs that are finite, or a clear error."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cvplugins.monitors.matching_costs import total_cost
from cvplugins.registry import TASK_UTILS

__all__: list[str] = []

if importlib.util.find_spec("mmdet") is not None:
    from mmdet.models.task_modules.assigners import HungarianAssigner

    __all__ += ["FiniteHungarianAssigner"]

    @TASK_UTILS.register_module()
    class FiniteHungarianAssigner(HungarianAssigner):
        """``mmdet.HungarianAssigner`` whose costs are finite; for Mask2Former, DETR and the like, also in mmseg.

        Upstream hands NaN to scipy, which says "matrix contains invalid numeric entries". This one names the cost,
        the predictions and the image. While all costs are finite the assignment is upstream's.

        Args:
            match_costs: As upstream's.
            replace_by: Cost, such as 1e5, that takes the place of one that is not finite, so that training can go on;
                None raises ``NonFiniteError``. With ``NonFiniteGuardHook``'s policy ``skip`` or ``rollback`` set it:
                the guard sees the loss that is not finite, but not an error within the forward pass.
            targets_at_once: For how many objects of an image costs are computed at once. The memory of mask costs grows
                with this number and no longer with that of the objects; the assignment is the same. None takes all.

        Raises:
            ValueError: ``replace_by`` or ``targets_at_once`` is not above 0.
        """

        match_costs: list[Any]

        def __init__(
            self,
            match_costs: Sequence[Mapping[str, Any]] | Mapping[str, Any],
            replace_by: float | None = None,
            targets_at_once: int | None = None,
        ) -> None:
            if targets_at_once is not None and targets_at_once < 1:
                raise ValueError(f"targets_at_once is {targets_at_once}; give a number of objects, or None for all")
            if replace_by is not None and not 0 < replace_by < float("inf"):
                raise ValueError(f"replace_by is {replace_by}; give a large finite cost such as 1e5, or None to raise")
            super().__init__(match_costs)
            # Upstream sums over this list.
            self.match_costs = [_FiniteSum(self.match_costs, replace_by, targets_at_once)]


class _FiniteSum:
    """All match costs as one."""

    def __init__(self, match_costs: list, replace_by: float | None, targets_at_once: int | None) -> None:
        names = [type(cost).__name__ for cost in match_costs]
        repeated = Counter(names)
        self.match_costs = {
            f"{name}[{index}]" if repeated[name] > 1 else name: cost
            for index, (name, cost) in enumerate(zip(names, match_costs, strict=True))
        }
        self.replace_by = replace_by
        self.targets_at_once = targets_at_once

    # Upstream keeps a graph of the costs, although the matching has no gradient.
    @torch.no_grad()
    def __call__(
        self, pred_instances, gt_instances, img_meta: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Tensor:
        step = self.targets_at_once or len(gt_instances)
        where = str((img_meta or {}).get("img_path", ""))
        columns = []
        for first in range(0, len(gt_instances), step):
            call = {"gt_instances": gt_instances[first : first + step], "img_meta": img_meta, **kwargs}
            costs = {name: cost(pred_instances=pred_instances, **call) for name, cost in self.match_costs.items()}
            columns.append(total_cost(costs, self.replace_by, where=where))
        return columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)
