"""Clip gradients just before each step, and log how often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .gradient_clipping import GradientClipping
from .options import require_at_least
from .run import Monitor, Run, Step

__all__ = ["GradientClippingMonitor"]


class GradientClippingMonitor(Monitor):
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

    Raises:
        ValueError: An option is out of its range, or a rule matches no parameter of the model.
    """

    def __init__(
        self,
        max_norm: float | None = None,
        max_value: float | None = None,
        clip_factor: float | None = None,
        rules: Sequence[Mapping[str, Any]] | None = None,
        interval: int = 50,
    ) -> None:
        require_at_least(1, interval=interval)
        self.clipping = GradientClipping.of(max_norm, max_value, clip_factor, rules)
        self.interval = interval

    def begin(self, run: Run) -> None:
        """Find the parameters of the rules."""
        self._names = {id(value): name for name, value in run.model.named_parameters()}
        self.clipping.assign(self._names.values())

    def before_step(self, run: Run, step: Step) -> None:
        """Clip."""
        step.unscale()
        named = [(self._names[id(value)], value) for value in step.parameters if id(value) in self._names]
        self.clipping.clip_(named, step.overflow)

    def after_iteration(self, run: Run) -> None:
        """Log how often was clipped."""
        if run.ends_interval(self.interval):
            report = self.clipping.report()
            if report is not None:
                run.log(report.scalars())

    def state_dict(self) -> dict[str, Any]:
        """Return the counts since the last report."""
        return self.clipping.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.clipping.load_state_dict(state)
