"""Hook: watch the gradients of mmengine's runner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from cvplugins.monitors import GradientHealth, GradientReport, GradientVerdict
from cvplugins.registry import HOOKS
from cvplugins.reporting import GradientLines

from .monitor_hook import MonitorHook, optim_wrappers

__all__ = ["GradientHealthHook"]


@HOOKS.register_module()
class GradientHealthHook(MonitorHook):
    """Watch the gradients just before an optimizer step; see :class:`cvplugins.monitors.GradientHealth`.

    The total norm goes to the log as ``train/gradient/norm``. Every ``detail_interval`` iterations the norms, shares
    of zeros and update-to-weight ratios of the blocks go to every backend of the visualizer, and those of the layers
    to ``gradient_health.jsonl`` in the run's log folder; at the end ``gradient_health.png`` and ``.svg`` are drawn
    from it. What is wrong is logged once, with the layer and the iteration at which it began. With gradient clipping
    the norms are those after clipping; mmengine logs the one before as ``grad_norm``.

    Args:
        interval: Observe every so many iterations; one device synchronisation each.
        depth: Parts of a module's name that make a block: 2 gives ``backbone.layer1``.
        stop_on_nonfinite: Stop when a gradient is NaN or infinite, at the next observation: with an interval of 1
            before it reaches the weights. False only logs it. Steps that AMP's GradScaler skips do not count.
        detail_interval: Look closer, and write, every so many iterations; during such a step a second copy of the
            weights is held. 0 for never.
        activations: Names of modules whose output is looked at as well; ``*`` and ``?`` stand for any part.
        limits: Where trouble begins: names and values of :class:`cvplugins.monitors.GradientLimits` that differ from
            its defaults.

    Raises:
        ValueError: An option is out of its range, or no module has a name in ``activations``.

    Example:
        In a config::

            custom_hooks = [dict(type='cvplugins.GradientHealthHook', activations=['backbone.layer*'],
                                 limits=dict(patience=50))]
    """

    priority = "NORMAL"
    checkpoint_key = "cvplugins_gradient_health"

    def __init__(
        self,
        interval: int = 1,
        depth: int = 2,
        stop_on_nonfinite: bool = True,
        detail_interval: int = 100,
        activations: Sequence[str] = (),
        limits: dict[str, float] | None = None,
    ) -> None:
        self.monitor = GradientHealth(
            depth=depth, interval=interval, detail_interval=detail_interval, activations=activations, limits=limits
        )
        self.stop_on_nonfinite = stop_on_nonfinite
        self._handles: list[Any] = []
        self._loss_at: int | None = None

    def before_train(self, runner) -> None:
        """Register with every optimizer: mmengine zeroes the gradients before any hook could see them."""
        self.monitor.check(runner.model)
        self._parameters: dict[str, tuple[int, list]] = {}
        for part, each in optim_wrappers(runner).items():
            self._watch(runner, each.optimizer, part)

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        """Watch activations, if it is time."""
        self.monitor.before_forward(runner.model, runner.iter)

    def after_train(self, runner) -> None:
        """Leave model and optimizers as they were, and draw the figure."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.monitor.close()
        self._lines(runner).draw()

    def _watch(self, runner, optimizer: Optimizer, part: str) -> None:
        self._handles += [
            optimizer.register_step_pre_hook(lambda optimizer, *_: self._observe(runner, optimizer, part)),
            optimizer.register_step_post_hook(lambda *_: self._observe_step(runner, part)),
        ]

    def _observe(self, runner, optimizer: Optimizer, part: str = "") -> None:
        if not self.monitor.is_due(runner.iter):
            return
        # Fused optimizers unscale in their step, and are called for a step that they skip: see GradScaler.step.
        overflow = getattr(optimizer, "found_inf", None)
        if overflow is not None and overflow.item():
            return
        scale = getattr(optimizer, "grad_scale", None)
        report = self.monitor.observe(
            self._own(runner, optimizer, part),
            runner.iter,
            scale=1.0 if scale is None else scale.item(),
            part=part,
            loss=self._new_loss(runner),
        )
        runner.message_hub.update_scalar("train/gradient/norm", report.total_norm)
        self._tell(runner, report.verdicts)
        if report.nonfinite:
            self._nonfinite(runner, report)
        if not self.monitor.detail_interval:
            runner.visualizer.add_scalars(self.monitor.scalars(report), step=runner.iter)

    def _observe_step(self, runner, part: str) -> None:
        report = self.monitor.after_step(runner.iter, part)
        if report is None:
            return
        runner.visualizer.add_scalars({"gradient/norm": report.total_norm, **report.scalars()}, step=runner.iter)
        self._lines(runner).add_detail(report, part)
        self._tell(runner, report.verdicts)

    def _own(self, runner, optimizer: Optimizer, part: str) -> list:
        """Return the optimizer's named parameters; walking through the model costs more than reading a norm."""
        count = sum(len(group["params"]) for group in optimizer.param_groups)
        known = self._parameters.get(part)
        if known is None or known[0] != count:
            own = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
            named = [(name, value) for name, value in runner.model.named_parameters() if id(value) in own]
            known = self._parameters[part] = (count, named)
        return known[1]

    def _new_loss(self, runner) -> float | None:
        """Return the loss of the iteration before, which mmengine has read already, unless it was given out."""
        if self._loss_at == runner.iter or "train/loss" not in runner.message_hub.log_scalars:
            return None
        self._loss_at = runner.iter
        return float(runner.message_hub.get_scalar("train/loss").current())

    def _nonfinite(self, runner, report: GradientReport) -> None:
        names = ", ".join(report.nonfinite[:5]) + (" ..." if len(report.nonfinite) > 5 else "")
        message = f"iteration {runner.iter}: {len(report.nonfinite)} gradients are not finite: {names}"
        if self.stop_on_nonfinite:
            self.monitor.close()
            self._lines(runner).draw()
            raise FloatingPointError(f"{message}; lower the learning rate or clip the gradients")
        runner.logger.warning(message)

    def _tell(self, runner, verdicts: Sequence[GradientVerdict]) -> None:
        for verdict in verdicts:
            log = runner.logger.info if verdict.kind == "plateau" else runner.logger.warning
            log(f"gradients: {verdict}")
            self._lines(runner).add_verdict(verdict)

    @staticmethod
    def _lines(runner) -> GradientLines:
        return GradientLines(Path(runner.log_dir, "gradient_health.jsonl"))
