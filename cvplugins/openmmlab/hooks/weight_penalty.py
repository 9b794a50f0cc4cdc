"""WeightPenaltyHook: L1, L2 and elastic net on chosen parameters, without touching the loss."""

from __future__ import annotations

from cvplugins.monitors import WeightPenaltyMonitor
from cvplugins.registry import HOOKS

from .monitor_hook import MonitorHook

__all__ = ["WeightPenaltyHook"]


@HOOKS.register_module()
class WeightPenaltyHook(MonitorHook):
    """mmengine's :class:`cvplugins.monitors.WeightPenaltyMonitor`; logs ``train/weight_penalty``."""

    monitor_type = WeightPenaltyMonitor
    checkpoint_key = "cvplugins_weight_penalty"
