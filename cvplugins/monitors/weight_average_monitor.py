"""Keep an average of the weights, for evaluations and for the end."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from .best_weights import BestWeights
from .run import Monitor, Run, Step
from .weight_average import WeightAverage

__all__ = ["WeightAverageMonitor"]


class WeightAverageMonitor(Monitor):
    """Average the weights after each step of the optimizer; see :class:`cvplugins.monitors.WeightAverage`.

    The average is what is evaluated; training goes on with the weights. It is part of the checkpoints' state, and at
    the end lies in ``model_ema.pth`` in the work dir.

    Args:
        momentum: Part of the way to the weights that an update goes; 1 minus the decay.
        gamma: Updates in which the average follows faster, as mmdet's ExpMomentumEMA; 0 for none.
        begin_iter: First iteration that counts.
        interval: Iterations between updates.
        update_buffers: Whether batch norm's statistics are averaged too.

    Attributes:
        average: The average; None before the run begins.

    Raises:
        ValueError: An option is out of its range; or, when a resumed run begins, its average is that of other weights.
    """

    def __init__(
        self,
        momentum: float = 0.0002,
        gamma: int = 0,
        begin_iter: int = 0,
        interval: int = 1,
        update_buffers: bool = False,
    ) -> None:
        WeightAverage.check(momentum, gamma, begin_iter, interval)
        self._options: dict[str, Any] = {
            "momentum": momentum,
            "gamma": gamma,
            "begin": begin_iter,
            "interval": interval,
            "update_buffers": update_buffers,
        }
        self.average: WeightAverage | None = None
        self._resumed: Mapping[str, Any] | None = None

    def begin(self, run: Run) -> None:
        """Begin the average, or go on with that of a resumed run."""
        self.average = WeightAverage(run.model, **self._options)
        if self._resumed is not None:
            self.average.load_state_dict(self._resumed)
            self._resumed = None

    def after_step(self, run: Run, step: Step) -> None:
        """Follow the weights, unless the optimizer skipped the step."""
        assert self.average is not None  # it has begun
        if not step.is_void():
            self.average.update(run.model, run.iteration)

    def applied(self, run: Run) -> AbstractContextManager[None]:
        """Let the average stand in for the weights."""
        assert self.average is not None  # it has begun
        return self.average.applied(run.model)

    def finish(self, run: Run) -> None:
        """Write the average."""
        if self.average is not None and self.average.updates:
            file = BestWeights(Path(run.work_dir, "model_ema.pth"), key=run.weights_key)
            with self.average.applied(run.model):
                file.keep(run.model, updates=self.average.updates)
            run.info(f"the averaged weights lie in {file.path}")

    def state_dict(self) -> dict[str, Any]:
        """Return the average."""
        return {} if self.average is None else self.average.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keep the state until the run begins."""
        self._resumed = state
