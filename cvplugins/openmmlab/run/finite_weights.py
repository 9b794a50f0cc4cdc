"""Checkpoints of a run that went wrong: weights, statistics or optimizer states that are not finite."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cvplugins.errors import UserError

from .checkpoint import weights_of

__all__ = ["check_finite"]

STATISTICS = ("running_mean", "running_var")


def check_finite(model: nn.Module, found: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Raise ``UserError`` if a checkpoint's weights for a model, or its optimizer's state, are not finite.

    Other buffers may hold infinity, as attention masks do.

    Args:
        model: The model.
        found: The opened checkpoint.
        path: Where it came from, for the message.
    """
    own = {name for name, _ in model.named_parameters()}
    weights = ((name.removeprefix("module."), value) for name, value in weights_of(dict(found), path).items())
    named = {name: value for name, value in weights if name in own or name.endswith(STATISTICS)}
    for name, value in [*named.items(), *_states(found.get("optimizer"), "optimizer")]:
        if isinstance(value, Tensor) and value.is_floating_point() and not torch.isfinite(value).all():
            count = int((~torch.isfinite(value)).sum())
            raise UserError(
                f"checkpoint {path}: {count} of the {value.numel()} numbers of {name} are not finite (NaN or "
                "infinity); no training recovers from that: give an earlier checkpoint"
            )


def _states(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the tensors that an optimizer, or each of several, keeps."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key != "param_groups":
                yield from _states(value, f"{path}[{key!r}]")
    elif isinstance(node, Tensor):
        yield path, node
