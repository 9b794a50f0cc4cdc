"""The keys of the original Mask2Former in a config, and ours for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.projects.deeplab import add_deeplab_config

from cvplugins.detectron2.models.losses import MASK2FORMER_PLACES
from cvplugins.errors import UserError

from .checkout import import_mask2former

__all__ = ["add_mask2former_config", "is_mask2former", "named_root", "validate_mask2former_config"]


def is_mask2former(cfg: Mapping[str, Any]) -> bool:
    """Return whether a config has the keys of the project, which :func:`add_mask2former_config` adds."""
    model = cfg.get("MODEL", {})
    return isinstance(model, Mapping) and "MASK_FORMER" in model


def named_root(*configs: Mapping[str, Any]) -> str:
    """Return the checkout that the first of some configs names, ``""`` if none does."""
    roots = (each.get("CVPLUGINS", {}).get("MASK2FORMER", {}).get("ROOT") for each in configs)
    return next(filter(None, roots), "")


def add_mask2former_config(cfg: CfgNode, root: str = "") -> None:
    """Import the project and add its keys, as the ``setup`` of its ``train_net.py`` does, and ours for it.

    Args:
        cfg: A config that :func:`add_cvplugins_config` was called with; changed.
        root: See :func:`import_mask2former`.

    Raises:
        UserError: There is no such checkout.

    Example::

        cfg = get_cfg()
        add_cvplugins_config(cfg)
        add_mask2former_config(cfg, "../Mask2Former")
        cfg.MODEL.META_ARCHITECTURE = "CvpluginsMaskFormer"
    """
    project = import_mask2former(root)
    add_deeplab_config(cfg)
    project.add_maskformer2_config(cfg)
    for place in MASK2FORMER_PLACES:
        cfg.CVPLUGINS.LOSSES[place] = CfgNode({"type": ""}, new_allowed=True)
    node = cfg.CVPLUGINS.MASK2FORMER = CfgNode()
    # The checkout; $MASK2FORMER_ROOT if empty.
    node.ROOT = ""
    # What takes the place of a matching cost that is not finite, such as 1e5; 0.0 stops with an error that names it.
    node.REPLACE_COST = 0.0
    # For how many objects of an image matching costs are computed at once; 0 takes all.
    node.TARGETS_AT_ONCE = 0
    from . import model  # noqa: F401 - registers CvpluginsMaskFormer, whose base class is known only now


def validate_mask2former_config(cfg: CfgNode) -> None:
    """Find mistakes before any work.

    Args:
        cfg: A config that :func:`add_mask2former_config` was called with.

    Raises:
        UserError: What is wrong, and what is accepted.
    """
    node, solver = cfg.CVPLUGINS.MASK2FORMER, cfg.SOLVER
    for key in ("REPLACE_COST", "TARGETS_AT_ONCE"):
        if node[key] < 0:
            raise UserError(f"CVPLUGINS.MASK2FORMER.{key} is {node[key]}; it must be above 0, or 0 to leave it out")
    if cfg.CVPLUGINS.TRAIN.OPTIMIZER.type:
        raise UserError("CVPLUGINS.TRAIN.OPTIMIZER: Mask2Former has its own optimizer; set SOLVER.OPTIMIZER instead")
    if solver.OPTIMIZER not in ("ADAMW", "SGD"):
        raise UserError(f"SOLVER.OPTIMIZER is {solver.OPTIMIZER!r}; Mask2Former takes ADAMW or SGD")
