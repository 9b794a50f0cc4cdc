"""Watch the gradients of a training, write down what they are like, and say what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from cvplugins.reporting import GradientLines

from .gradient_health import GradientHealth
from .gradient_verdicts import GradientVerdict
from .run import Monitor, Run, Step

__all__ = ["GradientHealthMonitor"]


class GradientHealthMonitor(Monitor):
    """Watch the gradients just before an optimizer step; see :class:`cvplugins.monitors.GradientHealth`.

    The total norm goes to the log as ``gradient/norm``. Every ``detail_interval`` iterations the norms, shares of
    zeros and update-to-weight ratios of the blocks go to every backend that draws curves, and those of the layers to
    ``gradient_health.jsonl`` in the run's log folder; at the end ``gradient_health.png`` and ``.svg`` are drawn from
    it. What is wrong is logged once, with the layer and the iteration at which it began. With gradient clipping the
    norms are those after it.

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
    """

    def __init__(
        self,
        interval: int = 1,
        depth: int = 2,
        stop_on_nonfinite: bool = True,
        detail_interval: int = 100,
        activations: Sequence[str] = (),
        limits: dict[str, float] | None = None,
    ) -> None:
        self.health = GradientHealth(
            depth=depth, interval=interval, detail_interval=detail_interval, activations=activations, limits=limits
        )
        self.stop_on_nonfinite = stop_on_nonfinite
        self._parameters: dict[str, tuple[int, list[tuple[str, Tensor]]]] = {}

    def begin(self, run: Run) -> None:
        """Find the modules, and the file."""
        self.health.check(run.model)
        self._parameters = {}
        self._lines = GradientLines(Path(run.log_dir, "gradient_health.jsonl"))

    def before_iteration(self, run: Run) -> None:
        """Watch activations, if it is time."""
        self.health.before_forward(run.model, run.iteration)

    def before_step(self, run: Run, step: Step) -> None:
        """Observe the gradients, if it is time."""
        if not self.health.is_due(run.iteration) or step.is_void():
            return
        scale = step.gradient_scale
        report = self.health.observe(
            self._own(run, step),
            run.iteration,
            scale=1.0 if scale is None else scale.item(),
            part=step.part,
            loss=run.newest_loss(),
        )
        assert report is not None  # it is due
        run.log({"gradient/norm": report.total_norm})
        self._tell(run, report.verdicts)
        if report.nonfinite:
            self._nonfinite(run, report.nonfinite)
        if not self.health.detail_interval:
            run.plot(self.health.scalars(report))

    def after_step(self, run: Run, step: Step) -> None:
        """End a closer look."""
        report = self.health.after_step(run.iteration, step.part)
        if report is not None:
            run.plot({"gradient/norm": report.total_norm, **report.scalars()})
            self._lines.add_detail(report, step.part)
            self._tell(run, report.verdicts)

    def release(self, run: Run) -> None:
        """Leave the model as it was, and draw the figure."""
        self.health.close()
        self._lines.draw()

    def state_dict(self) -> dict[str, Any]:
        """Return what was found so far."""
        return self.health.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.health.load_state_dict(dict(state))

    def _own(self, run: Run, step: Step) -> list[tuple[str, Tensor]]:
        """Return the optimizer's named parameters; walking through the model costs more than reading a norm."""
        count = sum(len(group["params"]) for group in step.optimizer.param_groups)
        known = self._parameters.get(step.part)
        if known is None or known[0] != count:
            own = {id(parameter) for parameter in step.parameters}
            named: list[tuple[str, Tensor]] = [
                (name, value) for name, value in run.model.named_parameters() if id(value) in own
            ]
            known = self._parameters[step.part] = (count, named)
        return known[1]

    def _nonfinite(self, run: Run, names: Sequence[str]) -> None:
        listed = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
        message = f"iteration {run.iteration}: {len(names)} gradients are not finite: {listed}"
        if self.stop_on_nonfinite:
            self.release(run)
            raise FloatingPointError(f"{message}; lower the learning rate or clip the gradients")
        run.warn(message)

    def _tell(self, run: Run, verdicts: Sequence[GradientVerdict]) -> None:
        for verdict in verdicts:
            (run.info if verdict.kind == "plateau" else run.warn)(f"gradients: {verdict}")
            self._lines.add_verdict(verdict)
