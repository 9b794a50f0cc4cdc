"""Say how fast a training is, what it waits for, and when it will be done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .run import Monitor, Run
from .throughput import Throughput

__all__ = ["ThroughputMonitor"]


class ThroughputMonitor(Monitor):
    """Say every so often how fast the training is and when it will be done; see :class:`cvplugins.monitors.Throughput`.

    Images per second over all ranks, time spent waiting for data and computing, peak memory, GPU utilisation (needs
    ``pip install nvidia-ml-py``), the slowest rank and the ETA go to the log in one line, and as ``throughput/...``
    to every backend that draws curves. A framework's hook runs the ``clock``: it knows when a batch has arrived.

    Args:
        interval: Report every so many iterations.
        window: Iterations whose median is the ETA's.

    Raises:
        ValueError: ``interval`` or ``window`` is less than 1.
    """

    def __init__(self, interval: int = 50, window: int = 200) -> None:
        self.clock = Throughput(interval=interval, window=window)

    def iteration_done(self, run: Run, images: int, iterations_left: int, validations_left: int) -> None:
        """Count this rank's images of an iteration, and report."""
        report = self.clock.step_done(run.iteration + 1, images, iterations_left, validations_left)
        if report is not None:
            run.info(f"throughput: {report}")
            run.plot(report.scalars(), step=report.iteration)

    def state_dict(self) -> dict[str, Any]:
        """Return what the clock knows of validations."""
        return self.clock.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.clock.load_state_dict(dict(state))
