"""GradientClippingHook: clip gradients under mmengine's Runner, each group of parameters by its own rule."""

from __future__ import annotations

from cvplugins.errors import UserError
from cvplugins.monitors import GradientClippingMonitor
from cvplugins.registry import HOOKS

from .monitor_hook import MonitorHook, optim_wrappers

__all__ = ["GradientClippingHook"]


@HOOKS.register_module()
class GradientClippingHook(MonitorHook):
    """mmengine's :class:`cvplugins.monitors.GradientClippingMonitor`; logs ``train/gradient/clipped`` and the norm."""

    monitor_type = GradientClippingMonitor
    checkpoint_key = "cvplugins_gradient_clipping"

    def before_run(self, runner) -> None:
        """Refuse a config that also clips by ``optim_wrapper.clip_grad``.

        Raises:
            UserError: It does.
        """
        for wrapper in optim_wrappers(runner).values():
            if getattr(wrapper, "clip_grad_kwargs", None):
                raise UserError(
                    f"GradientClippingHook and optim_wrapper.clip_grad={dict(wrapper.clip_grad_kwargs)} would both "
                    "clip; remove one of them (in a config that inherits it: optim_wrapper=dict(clip_grad=None))"
                )
