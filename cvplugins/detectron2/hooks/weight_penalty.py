"""WeightPenaltyHook: L1, L2 and elastic net on chosen parameters, without touching the loss."""

from __future__ import annotations

from cvplugins.monitors import WeightPenaltyMonitor

from .plugin_hook import MonitorHook

__all__ = ["WeightPenaltyHook"]


class WeightPenaltyHook(MonitorHook):
    """Detectron2's :class:`cvplugins.monitors.WeightPenaltyMonitor`."""

    monitor_type = WeightPenaltyMonitor
