"""Hook: watch the gradients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from cvplugins.errors import UserError
from cvplugins.monitors import GradientHealth, GradientVerdict
from cvplugins.reporting import GradientLines

from .plugin_hook import PluginHook, logger

__all__ = ["GradientHealthHook"]


class GradientHealthHook(PluginHook):
    """Watch the gradients just before an optimizer step; see :class:`cvplugins.monitors.GradientHealth`.

    Scalars go to the storage: ``gradient/norm``, and every ``detail_interval`` iterations norms, shares of zeros and
    update-to-weight ratios of the blocks. Those of the layers lie in ``gradient_health.jsonl`` in the output folder,
    of which ``gradient_health.png`` and ``.svg`` are drawn at the end. What is wrong is logged once, with the layer and
    the iteration at which it began. With gradient clipping the norms are those after it.

    Args:
        interval: Observe every so many iterations; one device synchronisation each.
        depth: Parts of a module's name that make a block: 2 gives ``backbone.bottom_up``.
        stop_on_nonfinite: Stop when a gradient is NaN or infinite, at the next observation: with an interval of 1
            before it reaches the weights. False only logs it. Steps that AMP's GradScaler skips do not count.
        detail_interval: Look closer, and write, every so many iterations; during such a step a second copy of the
            weights is held. 0 for never.
        activations: Names of modules whose output is looked at as well; ``*`` and ``?`` stand for any part.
        limits: Where trouble begins: names and values of :class:`cvplugins.monitors.GradientLimits` that differ from
            its defaults.
        output_dir: Where the files are written.

    Raises:
        ValueError: An option is out of its range.
    """

    def __init__(
        self,
        interval: int = 1,
        depth: int = 2,
        stop_on_nonfinite: bool = True,
        detail_interval: int = 100,
        activations: Sequence[str] = (),
        limits: dict[str, float] | None = None,
        output_dir: str = ".",
    ) -> None:
        self.monitor = GradientHealth(
            depth=depth, interval=interval, detail_interval=detail_interval, activations=activations, limits=limits
        )
        self.stop_on_nonfinite = stop_on_nonfinite
        self.lines = GradientLines(Path(output_dir, "gradient_health.jsonl"))
        self._loss_at: int | None = None

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Return the output folder."""
        return {**super().from_config(cfg), "output_dir": cfg.OUTPUT_DIR}

    def begin(self) -> None:
        """Watch the steps."""
        try:
            self.monitor.check(self.model)
        except ValueError as error:
            raise UserError(str(error)) from error
        self._named: list[tuple[str, Any]] = list(self.model.named_parameters())
        self.watch_steps(before=self._observe, after=self._observe_step)

    def before_step(self) -> None:
        """Watch activations, if it is time."""
        self.monitor.before_forward(self.model, self.trainer.iter)

    def release(self) -> None:
        """Leave the model as it was, and draw the figure."""
        self.monitor.close()
        self.lines.draw()

    def _observe(self, optimizer: Optimizer) -> None:
        if not self.monitor.is_due(self.trainer.iter):
            return
        # Fused optimizers unscale in their step, and are called for a step that they skip: see GradScaler.step.
        overflow = getattr(optimizer, "found_inf", None)
        if overflow is not None and overflow.item():
            return
        scale = getattr(optimizer, "grad_scale", None)
        report = self.monitor.observe(
            self._named,
            self.trainer.iter,
            scale=1.0 if scale is None else scale.item(),
            loss=self._new_loss(),
        )
        self.trainer.storage.put_scalar("gradient/norm", report.total_norm)
        self._tell(report.verdicts)
        if report.nonfinite:
            self._nonfinite(report.nonfinite)
        if not self.monitor.detail_interval:
            self.trainer.storage.put_scalars(**self.monitor.scalars(report))

    def _observe_step(self, _: Optimizer) -> None:
        report = self.monitor.after_step(self.trainer.iter)
        if report is not None:
            self.trainer.storage.put_scalars(**report.scalars(), smoothing_hint=False)
            self.lines.add_detail(report)
            self._tell(report.verdicts)

    def _new_loss(self) -> float | None:
        """Return the newest loss that Detectron2 has read, on the first rank, unless it was given out."""
        loss, iteration = self.trainer.storage.latest().get("total_loss", (None, None))
        if iteration == self._loss_at:
            return None
        self._loss_at = iteration
        return loss

    def _nonfinite(self, names: Sequence[str]) -> None:
        listed = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
        message = f"iteration {self.trainer.iter}: {len(names)} gradients are not finite: {listed}"
        if self.stop_on_nonfinite:
            raise FloatingPointError(f"{message}; lower the learning rate or clip the gradients")
        logger.warning(message)

    def _tell(self, verdicts: Sequence[GradientVerdict]) -> None:
        for verdict in verdicts:
            (logger.info if verdict.kind == "plateau" else logger.warning)("gradients: %s", verdict)
            self.lines.add_verdict(verdict)
