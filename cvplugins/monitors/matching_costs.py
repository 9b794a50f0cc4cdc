"""Costs of a bipartite matching, such as DETR's and Mask2Former's: finite, or an error that names the wrong one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .nonfinite import NonFiniteError

__all__ = ["total_cost"]


@torch.no_grad()
def total_cost(costs: Mapping[str, Tensor], replace_by: float | None = None, where: str = "") -> Tensor:
    """Return the sum of cost matrices, all values finite.

    scipy's ``linear_sum_assignment`` says of NaN no more than "matrix contains invalid numeric entries".

    Args:
        costs: Matrices by name, each ``(predictions, targets)``; half precision is summed in float32.
        replace_by: What takes the place of NaN and infinities of either sign, so that such pairs match last; finite
            costs are cut to plus or minus this. None raises instead.
        where: What the error says about the place, such as the image's name.

    Raises:
        NonFiniteError: A cost is not finite and ``replace_by`` is None.

    Example:
        >>> bad = torch.tensor([[float("nan"), 1.0]])
        >>> total_cost({"class": bad, "mask": torch.ones(1, 2)}, replace_by=100.0).tolist()
        [[101.0, 2.0]]
    """
    matrices = {name: cost.detach().float() for name, cost in costs.items()}
    if replace_by is not None:
        matrices = {
            name: torch.where(cost.isfinite(), cost.clamp(-replace_by, replace_by), replace_by)
            for name, cost in matrices.items()
        }
    total = torch.stack(list(matrices.values())).sum(0)
    # The matching reads the matrix on the CPU anyway, so that this look costs no further wait.
    if replace_by is None and not bool(total.isfinite().all()):
        named = [_describe(name, cost) for name, cost in matrices.items() if not bool(cost.isfinite().all())]
        raise NonFiniteError(
            f"matching costs are not finite{where and f' ({where})'}: {'; '.join(named) or 'their sum overflows'}. "
            "The model's predictions are NaN or infinite: lower the learning rate, clip the gradients, or check the "
            "data; with replace_by=1e5 the matching goes on, and a guard against non-finite losses can skip the step"
        )
    return total


def _describe(name: str, cost: Tensor) -> str:
    bad = ~cost.isfinite()
    predictions = bad.any(1).nonzero().flatten().tolist()
    shown = ", ".join(map(str, predictions[:5])) + (" ..." if predictions[5:] else "")
    return f"{name}, {int(bad.sum())} of {cost.numel()} values (predictions {shown})"
