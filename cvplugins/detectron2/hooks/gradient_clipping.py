"""GradientClippingHook: clip gradients, each group of parameters by its own rule."""

from __future__ import annotations

from typing import Any

from cvplugins.errors import UserError
from cvplugins.monitors import GradientClippingMonitor

from .plugin_hook import MonitorHook

__all__ = ["GradientClippingHook"]


class GradientClippingHook(MonitorHook):
    """Detectron2's :class:`cvplugins.monitors.GradientClippingMonitor`.

    Detectron2's own ``SOLVER.CLIP_GRADIENTS`` clips each parameter by itself, also where it says ``norm``.
    """

    monitor_type = GradientClippingMonitor

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Refuse a config that also clips by Detectron2's own key."""
        if cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
            raise UserError("SOLVER.CLIP_GRADIENTS would clip too; set SOLVER.CLIP_GRADIENTS.ENABLED to False")
        return super().from_config(cfg)
