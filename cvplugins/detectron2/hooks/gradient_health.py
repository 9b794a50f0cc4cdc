"""GradientHealthHook: watch the gradients of a Detectron2 trainer."""

from __future__ import annotations

from cvplugins.monitors import GradientHealthMonitor

from .plugin_hook import MonitorHook

__all__ = ["GradientHealthHook"]


class GradientHealthHook(MonitorHook):
    """Detectron2's :class:`cvplugins.monitors.GradientHealthMonitor`; its files lie in the output folder."""

    monitor_type = GradientHealthMonitor
