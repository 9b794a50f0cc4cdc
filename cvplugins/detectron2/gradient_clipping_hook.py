"""Hook: clip gradients, each group of parameters by its own rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from cvplugins.errors import UserError
from cvplugins.monitors import GradientClipping
from cvplugins.monitors.gradient_clipping import unscale_fused_

from .plugin_hook import PluginHook

__all__ = ["GradientClippingHook"]


class GradientClippingHook(PluginHook):
    """Clip the gradients just before each optimizer step; see :class:`cvplugins.monitors.GradientClipping`.

    Detectron2's own ``SOLVER.CLIP_GRADIENTS`` clips each parameter by itself, also where it says ``norm``, and AMP's
    GradScaler unscales before either. Logs ``gradient/clipped``, the share of the steps in which was clipped, and
    ``gradient/norm_before_clipping``.

    Args:
        max_norm: Greatest norm of all gradients together.
        max_value: Greatest absolute value of each.
        clip_factor: Greatest ratio of gradient to weight norm of an output unit (adaptive clipping).
        rules: Instead of these three, one dict per group of parameters with the options of
            :class:`cvplugins.monitors.ClippingRule`: ``{pattern: backbone.*, max_norm: 1.0}``.
        interval: Log every so many iterations; reads the device once.

    Raises:
        ValueError: An option is out of its range.
    """

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

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Refuse a config that also clips by Detectron2's own key."""
        if cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
            raise UserError("SOLVER.CLIP_GRADIENTS would clip too; set SOLVER.CLIP_GRADIENTS.ENABLED to False")
        return super().from_config(cfg)

    def begin(self) -> None:
        """Find the parameters of the rules, and watch the steps."""
        self._names = {id(value): name for name, value in self.model.named_parameters()}
        try:
            self.monitor.assign(self._names.values())
        except ValueError as error:
            raise UserError(str(error)) from error
        self.watch_steps(before=self._clip)

    def after_step(self) -> None:
        """Log how often was clipped."""
        if (self.trainer.iter + 1) % self.interval == 0:
            report = self.monitor.report()
            if report is not None:
                self.trainer.storage.put_scalars(**report.scalars(), smoothing_hint=False)

    def _clip(self, optimizer: Optimizer) -> None:
        is_void = unscale_fused_(optimizer)
        parameters = [value for group in optimizer.param_groups for value in group["params"]]
        self.monitor.clip_(
            [(self._names[id(value)], value) for value in parameters if id(value) in self._names], is_void
        )
