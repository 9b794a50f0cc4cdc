"""Losses, metrics, SyncBN settings, training hooks, configs and tools for OpenMMLab and Detectron2.

Importing this package imports no framework and not even torch. ``cvplugins.losses``, ``cvplugins.metrics``,
``cvplugins.norm`` and ``cvplugins.monitors`` are the core (torch, NumPy, SciPy); ``cvplugins.registry``
makes every plugin known to mmengine, which imports it by itself when a config says ``type='cvplugins.X'``.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
