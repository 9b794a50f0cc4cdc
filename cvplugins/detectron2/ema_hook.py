"""Hook: evaluate and keep an average of the weights."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from cvplugins.monitors import BestWeights, WeightAverage

from .plugin_hook import PluginHook, logger

__all__ = ["EMAHook"]


class EMAHook(PluginHook):
    """Average the weights after each step of the optimizer; see :class:`cvplugins.monitors.WeightAverage`.

    The average is what is evaluated, and what EarlyStoppingHook and BestCheckpointHook keep; training goes on with the
    weights. It is part of the checkpoints' state, and at the end lies in ``model_ema.pth`` in the output folder, which
    ``MODEL.WEIGHTS`` takes. Options have the names of mmengine's hook.

    Args:
        momentum: Part of the way to the weights that an update goes; 1 minus the decay.
        gamma: Updates in which the average follows faster, as mmdet's ExpMomentumEMA; 0 for none.
        begin_iter: First iteration that counts.
        interval: Iterations between updates.
        update_buffers: Whether batch norm's statistics are averaged too.
        output_dir: Where the last average is written; None for nowhere.

    Raises:
        ValueError: An option is out of its range.
    """

    def __init__(
        self,
        momentum: float = 0.0002,
        gamma: int = 0,
        begin_iter: int = 0,
        interval: int = 1,
        update_buffers: bool = False,
        output_dir: str | None = None,
    ) -> None:
        WeightAverage.check(momentum, gamma, begin_iter, interval)
        self.options: dict[str, Any] = {"momentum": momentum, "gamma": gamma, "begin": begin_iter, "interval": interval}
        self.update_buffers = update_buffers
        self.output_dir = output_dir

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Return the output folder."""
        return {**super().from_config(cfg), "output_dir": cfg.OUTPUT_DIR}

    def begin(self) -> None:
        """Begin the average, if it was not resumed, and watch the steps."""
        self._make()
        self.watch_steps(after=lambda _: self.monitor.update(self.model, self.trainer.iter))

    def evaluation(self) -> AbstractContextManager[None]:
        """Let the average stand in for the weights."""
        return self.monitor.applied(self.model)

    def finish(self) -> None:
        """Write the average."""
        if self.output_dir is not None and self.monitor is not None and self.monitor.updates:
            file = BestWeights(Path(self.output_dir, "model_ema.pth"), key="model")
            with self.monitor.applied(self.model):
                file.keep(self.model, updates=self.monitor.updates)
            logger.info("the averaged weights lie in %s", file.path)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the average of the checkpoint."""
        self._make()
        super().load_state_dict(state)

    def _make(self) -> None:
        if self.monitor is None:
            self.monitor = WeightAverage(self.model, **self.options, update_buffers=self.update_buffers)
