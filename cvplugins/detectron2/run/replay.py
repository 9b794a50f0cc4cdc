"""What of a replay is Detectron2's: a config's model, and its losses; see :mod:`cvplugins.cli.replay_files`."""

from __future__ import annotations

import os

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model as build
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from cvplugins.detectron2.mask2former.config import add_mask2former_config, is_mask2former, named_root
from cvplugins.detectron2.models.model_losses import forward_without_raising, summed_losses
from cvplugins.detectron2.models.norm import apply_norm_policy
from cvplugins.errors import UserError, first_line
from cvplugins.monitors import Replay

from .config import read_content
from .config_node import add_cvplugins_config

__all__ = ["build_model", "compute_losses"]


def build_model(config: str | os.PathLike) -> nn.Module:
    """Build the model of a config, such as the ``config.yaml`` that ``default_setup`` writes into ``OUTPUT_DIR``.

    Keys of other projects are accepted. Its bases may be those that :func:`~.config.load_config` knows.

    Raises:
        UserError: The config has none, or not one that can be built here.
    """
    cfg = get_cfg()
    add_cvplugins_config(cfg)
    cfg.set_new_allowed(True)
    try:
        content = read_content(config)
        if "META_ARCHITECTURE" not in (content.get("MODEL") or {}):
            raise UserError(f"config {config} has no MODEL.META_ARCHITECTURE; give the run's config.yaml with --config")
        if is_mask2former(content):
            add_mask2former_config(cfg, named_root(content))  # registers the model
        cfg.merge_from_other_cfg(CfgNode(content))
        cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
        built = build(cfg)
    except UserError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(
            f"the model of config {config} cannot be built: {first_line(error)}; for a model of your own code call "
            "cvplugins.cli.replay_files.replay(file, model=model)"
        ) from error
    apply_norm_policy(cfg, built)
    return built


def compute_losses(model: nn.Module, found: Replay) -> dict[str, Tensor]:
    """Return the loss components of a failed iteration, summed over the batches that it accumulated."""
    forward = forward_without_raising(model, [name for kind, name, *_ in found.faults if kind == "loss"])
    with EventStorage(found.iteration):
        return summed_losses(forward(batch) for batch in found.batch)
