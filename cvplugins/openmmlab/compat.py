"""Differences between the original OpenMMLab distributions and their maintained forks."""

from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import is_installed

__all__ = ["make_mmseg_configs_reachable"]


def make_mmseg_configs_reachable() -> None:
    """Let ``_base_ = 'mmseg::...'`` find the configs of the fork ``onedl-mmsegmentation``.

    mmengine/config/utils.py (onedl-mmengine 0.10.12) asks for the original distribution's name,
    ``mmsegmentation``, and reports it as not installed. Nothing changes where the original is installed.
    """
    if not is_installed("mmsegmentation") and is_installed("onedl-mmsegmentation"):
        MODULE2PACKAGE["mmseg"] = "onedl-mmsegmentation"
