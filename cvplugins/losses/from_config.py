"""A loss from a config: a dict with ``type`` and the options of that loss."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from cvplugins.errors import UserError
from cvplugins.options import check_options, plain

__all__ = ["build_loss"]


def build_loss(config: Mapping[str, Any], known: Sequence[type[nn.Module]] | None = None) -> nn.Module:
    """Return the loss that a config describes.

    Args:
        config: ``type``, the name of a loss, with or without OpenMMLab's ``cvplugins.`` before it, and its options. The
            losses within a loss (``loss`` of OHEMLoss, ``losses`` of CompositeLoss) are configs too. ``use_sigmoid`` is
            allowed where there is no such choice, as OpenMMLab's heads want it, if it is true of the loss.
        known: The losses to choose from; all if None.

    Raises:
        UserError: There is no such loss, or an option is unknown, missing or wrong.

    Example:
        >>> build_loss({"type": "FocalLoss", "gamma": 1.5}).gamma
        1.5
        >>> build_loss({"type": "OHEMLoss", "keep_ratio": 0.5, "loss": {"type": "CrossEntropyLoss"}}).loss
        CrossEntropyLoss()
    """
    from . import LOSSES

    if not isinstance(config, Mapping) or "type" not in config:
        raise UserError(f"expected the config of a loss, a dict with type, but got {config!r}")
    cores = {core.__name__: core for core in (LOSSES if known is None else known)}
    options = {name: plain(value) for name, value in config.items() if name != "type"}
    name = str(config["type"]).removeprefix("cvplugins.")
    if name not in cores:
        raise UserError(f"no loss {name!r} here; use {', '.join(sorted(cores))}")
    core = cores[name]
    accepted = inspect.signature(core).parameters
    fixed = options.pop("use_sigmoid") if "use_sigmoid" in options and "use_sigmoid" not in accepted else None
    check_options(core, options, name)
    if "loss" in options:
        options["loss"] = build_loss(options["loss"], known)
    if isinstance(options.get("losses"), Mapping):
        options["losses"] = {part: build_loss(each, known) for part, each in options["losses"].items()}
    try:
        loss = core(**options)
        uses = bool(getattr(loss, "use_sigmoid", False))  # parts of a CompositeLoss that disagree say so here
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: {error}") from error
    if fixed is not None and fixed != uses:
        raise UserError(f"{name} works with use_sigmoid={uses} only")
    return loss
