"""Losses, metrics, SyncBN settings, training hooks, configs and tools for OpenMMLab and Detectron2.

Importing this package imports no framework and not even torch. ``cvplugins.losses``, ``cvplugins.metrics``,
``cvplugins.norm`` and ``cvplugins.monitors`` are the core (torch, NumPy, SciPy); ``cvplugins.registry``
makes every plugin known to mmengine, which imports it by itself when a config says ``type='cvplugins.X'``.
"""

__version__ = "0.1.0"
__all__ = ["__version__", "config_path"]


def config_path(path_or_name: str) -> str:
    """Return the path of a config that comes with this package, by its name, for a config that inherits from it.

    mmengine's loader evaluates ``_base_``, so that this works in its own tools too, with nothing of ours imported
    before::

        _base_ = __import__("cvplugins").config_path("voc_faster_rcnn")

    Args:
        path_or_name: Such as ``"voc_faster_rcnn"`` or ``"detectron2/voc_faster_rcnn_R_50_FPN"``; a file of this path
            comes first.

    Raises:
        UserError: There is no such config; the message has the closest ones.
    """
    import sys

    from .config_files import find_config

    path = find_config(path_or_name)
    if path.suffix == ".py" and "mmengine" in sys.modules:
        # Its loader is about to read the config, which may name one of mmseg's as its base.
        from .openmmlab.upstream import make_mmseg_configs_reachable

        make_mmseg_configs_reachable()
    return str(path)
