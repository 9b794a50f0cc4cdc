"""Does the state of an optimizer in a checkpoint fit the optimizer that goes on with it?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .errors import UserError
from .safe_loading import BrokenCheckpointError

__all__ = ["check_optimizer_fits", "check_optimizer_state"]

# torch fills these in for states of before they existed; the first learning rate is the scheduler's.
OPTIONAL = {"foreach", "maximize", "capturable", "differentiable", "fused", "decoupled_weight_decay", "initial_lr"}
# Of the parameter's shape in every optimizer that has them.
MOMENTS = {"momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}


def check_optimizer_state(state: Any, source: str) -> None:
    """Raise unless something has the form of what ``Optimizer.state_dict`` returns.

    Args:
        state: What a checkpoint holds where it should be.
        source: What the message begins with, such as ``"checkpoint a.pth: optimizer"``.

    Raises:
        BrokenCheckpointError: It has not.

    Example:
        >>> check_optimizer_state({"state": {}}, "checkpoint a.pth: optimizer")
        Traceback (most recent call last):
        ...
        cvplugins.safe_loading.BrokenCheckpointError: checkpoint a.pth: optimizer['param_groups'] is missing
    """
    if not isinstance(state, Mapping):
        raise BrokenCheckpointError(f"{source} is a {type(state).__name__}, not the state of an optimizer")
    for key, kind in (("state", Mapping), ("param_groups", list)):
        if key not in state:
            raise BrokenCheckpointError(f"{source}[{key!r}] is missing")
        if not isinstance(state[key], kind):
            raise BrokenCheckpointError(f"{source}[{key!r}] is a {type(state[key]).__name__}, not a {kind.__name__}")
    for index, group in enumerate(state["param_groups"]):
        if not isinstance(group, Mapping) or not isinstance(group.get("params"), list):
            raise BrokenCheckpointError(f"{source}['param_groups'][{index}] is no group with its parameters")
    for index, each in state["state"].items():
        if not isinstance(each, Mapping):
            raise BrokenCheckpointError(f"{source}['state'][{index!r}] is a {type(each).__name__}, not a dict")


def check_optimizer_fits(optimizer: torch.optim.Optimizer, state: Mapping[str, Any], source: str) -> None:
    """Raise unless an optimizer can go on with a state; torch finds part of it, and some only at the first step.

    Args:
        optimizer: Built as the run will build it.
        state: Passed :func:`check_optimizer_state`.
        source: What the message begins with.

    Raises:
        UserError: It is the state of another optimizer, or of other parameters.
    """
    ours, theirs = optimizer.param_groups, state["param_groups"]
    if len(ours) != len(theirs):
        raise UserError(f"{source} has {len(theirs)} parameter groups, and the config makes {len(ours)}{_ADVICE}")
    for index, (group, other) in enumerate(zip(ours, theirs, strict=True)):
        place = f"{source}['param_groups'][{index}]"
        if missing := sorted(set(group) - set(other) - OPTIONAL):
            kind = type(optimizer).__name__
            raise UserError(f"{place} has no {', '.join(missing)}, which the config's {kind} needs{_ADVICE}")
        if len(group["params"]) != len(other["params"]):
            has, wants = len(other["params"]), len(group["params"])
            raise UserError(f"{place} has {has} parameters, and the config makes {wants}{_ADVICE}")
        for parameter, key in zip(group["params"], other["params"], strict=True):
            for name, value in state["state"].get(key, {}).items():
                if name in MOMENTS and isinstance(value, Tensor) and value.shape != parameter.shape:
                    shape, wanted = tuple(value.shape), tuple(parameter.shape)
                    raise UserError(f"{source}['state'][{key!r}] has {name} of {shape}, not {wanted}{_ADVICE}")


_ADVICE = ": it was written with another optimizer or model; give the config of that run"
