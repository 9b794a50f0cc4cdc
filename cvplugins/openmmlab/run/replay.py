"""What of a replay is mmengine's: the model from its config, and its losses; see :mod:`cvplugins.cli.replay_files`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from cvplugins.errors import UserError, first_line
from cvplugins.monitors import Replay

from .config import load_config

__all__ = ["build_model", "compute_losses", "loss_components", "run_forward"]


def build_model(config: str | os.PathLike) -> nn.Module:
    """Build the model of a config.

    Raises:
        UserError: The config has none, or not one that can be built here.
    """
    cfg = load_config(config)
    if cfg.get("model") is None:
        raise UserError(f"config {config} has no model; give the run's config with --config")
    if cfg.get("default_scope"):
        init_default_scope(cfg.default_scope)
    try:
        return MODELS.build(cfg.model)
    except KeyError as error:
        raise UserError(f"the model of config {config} cannot be built: {first_line(error)}") from error


def compute_losses(model: BaseModel, found: Replay) -> dict[str, Any]:
    """Return the loss components of a failed iteration's batch."""
    return loss_components(run_forward(model, found.batch))


def run_forward(model: BaseModel, batch: Any) -> Mapping[str, Any]:
    """Return the losses of a batch, as mmengine's ``BaseModel.train_step`` computes them."""
    return model._run_forward(model.data_preprocessor(batch, True), mode="loss")


def loss_components(losses: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``BaseModel.parse_losses`` adds up: tensors, or lists of them, with "loss" in their name."""
    return {name: value for name, value in losses.items() if "loss" in name and isinstance(value, (Tensor, list))}
