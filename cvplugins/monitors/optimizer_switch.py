"""Go on with another optimizer in the middle of a training: Adam to begin with, SGD to finish."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

__all__ = ["carry_over", "switch_optimizer"]


def switch_optimizer(old: Optimizer, build: Callable[[list[dict[str, Any]]], Optimizer]) -> tuple[Optimizer, float]:
    """Return an optimizer with the parameter groups of another one.

    The groups keep their parameters, order and proportions: a group with a tenth of the old base rate has a tenth of
    the new one, where its schedule stands now, and one without weight decay stays without. What only the old
    optimizer knows (``betas``) is dropped, its moments too: those of one rule mean nothing to another. Hooks that
    were registered with the old optimizer are called by the new one.

    Args:
        old: The optimizer so far; its defaults are the base rate and decay.
        build: Makes the new optimizer from parameter groups; its own defaults are the new base rate and decay.

    Returns:
        The new optimizer, and the ratio of the base rates, for schedulers that keep rates.

    Raises:
        ValueError: The new base rate is not above 0.

    Example:
        >>> import torch
        >>> layers = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
        >>> groups = [dict(params=layers[0].parameters(), lr=1e-4), dict(params=layers[1].parameters())]
        >>> adam = torch.optim.AdamW(groups, lr=1e-3)
        >>> sgd, ratio = switch_optimizer(adam, lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9))
        >>> [round(group["lr"], 6) for group in sgd.param_groups], ratio
        ([0.01, 0.1], 100.0)
    """
    new = build([{"params": group["params"]} for group in old.param_groups])
    if not new.defaults["lr"] > 0:
        raise ValueError(f"the new optimizer has a learning rate of {new.defaults['lr']}; it must be above 0")
    ratio = new.defaults["lr"] / old.defaults["lr"]
    for group, before in zip(new.param_groups, old.param_groups, strict=True):
        group.update(carry_over(before, old.defaults, new.defaults))
    # The dicts themselves, so that the handles of the hooks still remove them.
    new._optimizer_step_pre_hooks = old._optimizer_step_pre_hooks
    new._optimizer_step_post_hooks = old._optimizer_step_post_hooks
    return new, ratio


def carry_over(group: dict[str, Any], old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return what a group of the new optimizer takes from one of the old: rates, decay, and what no optimizer knows.

    Args:
        group: A parameter group of the old optimizer.
        old: The old optimizer's defaults.
        new: The new optimizer's.

    Example:
        >>> group = {"params": [], "lr": 0.05, "initial_lr": 0.1, "weight_decay": 0.0, "betas": (0.9, 0.99)}
        >>> carry_over(group, {"lr": 0.1, "weight_decay": 0.1, "betas": (0.9, 0.99)}, {"lr": 1.0, "weight_decay": 0.2})
        {'initial_lr': 1.0, 'lr': 0.5, 'weight_decay': 0.0}
    """
    ratio = new["lr"] / old["lr"]
    kept = {name: value for name, value in group.items() if name != "params" and name not in old and name not in new}
    for name in ("initial_lr", "max_lr", "min_lr"):  # of schedulers
        if name in kept:
            kept[name] = kept[name] * ratio
    kept["lr"] = group["lr"] * ratio
    if "weight_decay" in new:
        # Without a decay so far there are no proportions to keep, but a group that differs from it has its own.
        share = group.get("weight_decay", 0.0) / old["weight_decay"] if old.get("weight_decay") else 1.0
        kept["weight_decay"] = new["weight_decay"] * share
    return kept
