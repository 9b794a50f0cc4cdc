"""The datasets of a config in Detectron2's catalog."""

from __future__ import annotations

from detectron2.config import CfgNode

from .ade20k import register_ade20k
from .voc import register_voc

__all__ = ["register_datasets"]


def register_datasets(cfg: CfgNode) -> None:
    """Put PASCAL VOC and ADE20K into the catalog; see :func:`register_voc` and :func:`register_ade20k`."""
    register_voc(cfg)
    register_ade20k(cfg)
