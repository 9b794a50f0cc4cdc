"""A loss from a config: a dict with ``type`` and the options of that loss."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from cvplugins.errors import UserError
from cvplugins.options import check_options, plain

from .contract import uses_sigmoid

__all__ = ["OF_SIGMOIDS", "build_loss", "check_loss_weight", "checked_config", "loss_of_options"]

Core = TypeVar("Core", bound=nn.Module)

OF_SIGMOIDS = (
    "losses of sigmoids are BCELoss, FocalLoss(use_sigmoid=True), region losses with mode='binary' or 'multilabel', "
    "and LovaszLoss(binary=True)"
)


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

    config = checked_config(config)
    cores = {core.__name__: core for core in (LOSSES if known is None else known)}
    options = {name: plain(value) for name, value in config.items() if name != "type"}
    name = str(config["type"]).removeprefix("cvplugins.")
    if name not in cores:
        raise UserError(f"no loss {name!r} here; use {', '.join(sorted(cores))}")
    return loss_of_options(cores[name], options, lambda part: build_loss(part, known))


def loss_of_options(core: type[Core], options: Mapping[str, Any], build_part: Callable[[Any], nn.Module]) -> Core:
    """Return a loss with the options of a config.

    Args:
        core: One of the losses.
        options: Those of the config, without ``type``.
        build_part: Returns the loss of a config within this one.

    Raises:
        UserError: See :func:`build_loss`.
    """
    name, options = core.__name__, dict(options)
    accepted = inspect.signature(core).parameters
    fixed = options.pop("use_sigmoid") if "use_sigmoid" in options and "use_sigmoid" not in accepted else None
    check_options(core, options, name)
    if "loss" in options:
        options["loss"] = build_part(options["loss"])
    if "losses" in options:
        if not isinstance(options["losses"], Mapping):
            raise UserError(
                f"losses is {options['losses']!r}; expected configs under names, such as dict(dice=dict(type=...))"
            )
        options["losses"] = {part: build_part(each) for part, each in options["losses"].items()}
    try:
        loss = core(**options)
        uses = uses_sigmoid(loss)  # parts of a CompositeLoss that disagree say so here
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: {error}") from error
    if fixed is not None and bool(fixed) != uses:
        raise UserError(f"{name} works with use_sigmoid={uses} only{f'; {OF_SIGMOIDS}' if fixed else ''}")
    return loss


def checked_config(config: Any) -> Mapping[str, Any]:
    """Return the config of a loss; raise ``UserError`` if it is none."""
    if not isinstance(config, Mapping) or "type" not in config:
        raise UserError(f"expected the config of a loss, a dict with type, but got {config!r}")
    return config


def check_loss_weight(weight: Any, loss: str) -> float:
    """Return the factor of a loss; raise ``UserError`` unless it is a finite number.

    >>> check_loss_weight("2", "FocalLoss")
    Traceback (most recent call last):
    ...
    cvplugins.errors.UserError: loss_weight of FocalLoss is '2'; expected a number
    """
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
        raise UserError(f"loss_weight of {loss} is {weight!r}; expected a number")
    return weight
