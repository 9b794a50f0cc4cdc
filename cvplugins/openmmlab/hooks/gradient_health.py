"""GradientHealthHook: watch the gradients of mmengine's runner."""

from __future__ import annotations

from cvplugins.monitors import GradientHealthMonitor
from cvplugins.registry import HOOKS

from .monitor_hook import MonitorHook

__all__ = ["GradientHealthHook"]


@HOOKS.register_module()
class GradientHealthHook(MonitorHook):
    """mmengine's :class:`cvplugins.monitors.GradientHealthMonitor`.

    It logs ``train/gradient/norm``, after ``optim_wrapper.clip_grad``; mmengine logs the norm before as ``grad_norm``.

    Example:
        In a config::

            custom_hooks = [dict(type='cvplugins.GradientHealthHook', activations=['backbone.layer*'],
                                 limits=dict(patience=50))]
    """

    monitor_type = GradientHealthMonitor
    checkpoint_key = "cvplugins_gradient_health"
