"""Clip gradients under mmengine's Runner, each group of parameters by its own rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from cvplugins.errors import UserError
from cvplugins.monitors.gradient_clipping import GradientClipping, unscale_fused_
from cvplugins.registry import HOOKS

from .monitor_hook import MonitorHook, optim_wrappers

__all__ = ["GradientClippingHook"]


@HOOKS.register_module()
class GradientClippingHook(MonitorHook):
    """Clip the gradients just before each optimizer step; see :class:`cvplugins.monitors.GradientClipping`.

    Logs ``gradient/clipped``, the share of the steps in which was clipped, and ``gradient/norm_before_clipping``.
    With AMP the gradients are unscaled first; with gradient accumulation it clips their sum, once a step.

    Args:
        max_norm: Greatest norm of all gradients together.
        max_value: Greatest absolute value of each.
        clip_factor: Greatest ratio of gradient to weight norm of an output unit (adaptive clipping).
        rules: Instead of these three, one dict per group of parameters with the options of
            :class:`cvplugins.monitors.ClippingRule`: ``dict(pattern='backbone.*', max_norm=1.0)``. The first that
            matches counts; parameters that none matches are left alone.
        interval: Log every so many iterations; reads the device once.
    """

    priority = "NORMAL"
    checkpoint_key = "cvplugins_gradient_clipping"

    def __init__(
        self,
        max_norm: float | None = None,
        max_value: float | None = None,
        clip_factor: float | None = None,
        rules: Sequence[Mapping[str, Any]] | None = None,
        interval: int = 50,
    ) -> None:
        if interval < 1:
            raise ValueError(f"interval is {interval}; it must be at least 1")
        self.monitor = GradientClipping.of(max_norm, max_value, clip_factor, rules)
        self.interval = interval

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

    def before_train(self, runner) -> None:
        """Register with every optimizer: mmengine steps before any hook could clip.

        Raises:
            UserError: A rule matches no parameter.
        """
        self._names = {id(value): name.removeprefix("module.") for name, value in runner.model.named_parameters()}
        try:
            self.monitor.assign(self._names.values())
        except ValueError as error:
            raise UserError(str(error)) from error
        self._handles = [
            wrapper.optimizer.register_step_pre_hook(lambda optimizer, *_: self._clip(optimizer))
            for wrapper in optim_wrappers(runner).values()
        ]

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Log how often was clipped."""
        if (runner.iter + 1) % self.interval == 0:
            report = self.monitor.report()
            if report is not None:
                for name, value in report.scalars().items():
                    runner.message_hub.update_scalar(f"train/{name}", value)

    def after_train(self, runner) -> None:
        """Leave the optimizers as they were."""
        for handle in self._handles:
            handle.remove()

    def _clip(self, optimizer: Optimizer) -> None:
        is_void = unscale_fused_(optimizer)
        parameters = [value for group in optimizer.param_groups for value in group["params"]]
        self.monitor.clip_(
            [(self._names[id(value)], value) for value in parameters if id(value) in self._names], is_void
        )
