"""How Mask2Former sees an image when it is tested: once, or at several sizes and mirrored."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode
from torch import nn

from cvplugins.detectron2.mask2former.config import is_mask2former
from cvplugins.errors import UserError

from .checkout import import_mask2former

__all__ = ["use_inference", "with_several_sizes"]


def use_inference(
    cfg: CfgNode, mode: str | None = None, scales: Sequence[float] | None = None, flip: bool = False
) -> None:
    """Set how images are tested; what is not given stays as the config says.

    Args:
        cfg: Detectron2's config; changed.
        mode: ``"whole"``.
        scales: Factors of ``INPUT.MIN_SIZE_TEST``, whose scores are averaged.
        flip: Whether to average with the mirrored image.

    Raises:
        UserError: The model cannot be tested so.
    """
    if mode not in (None, "whole"):
        raise UserError(f"--mode {mode} is for mmseg's models; those of Detectron2 see images whole")
    if not scales and not flip:
        return
    if not is_mask2former(cfg):
        raise UserError(f"--scales and --flip are for Mask2Former, not for {cfg.MODEL.META_ARCHITECTURE}")
    scales = scales or [1.0]
    cfg.TEST.AUG.ENABLED = True
    cfg.TEST.AUG.MIN_SIZES = [round(scale * cfg.INPUT.MIN_SIZE_TEST) for scale in scales]
    cfg.TEST.AUG.MAX_SIZE = round(max(scales) * cfg.INPUT.MAX_SIZE_TEST)
    cfg.TEST.AUG.FLIP = flip


def with_several_sizes(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """Return the model, which averages over sizes as the project's own does if ``TEST.AUG.ENABLED`` is set."""
    if is_mask2former(cfg) and cfg.TEST.AUG.ENABLED:
        return import_mask2former().SemanticSegmentorWithTTA(cfg, model)
    return model
